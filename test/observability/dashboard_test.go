// SPDX-License-Identifier: Apache-2.0

package observability_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

type dashboard struct {
	ID         *int   `json:"id"`
	UID        string `json:"uid"`
	Title      string `json:"title"`
	Templating struct {
		List []variable `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type variable struct {
	Name       string      `json:"name"`
	Type       string      `json:"type"`
	Query      any         `json:"query"`
	Datasource *datasource `json:"datasource"`
	Multi      bool        `json:"multi"`
	IncludeAll bool        `json:"includeAll"`
	AllValue   string      `json:"allValue"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int                      `json:"id"`
	Type        string                   `json:"type"`
	Title       string                   `json:"title"`
	Description string                   `json:"description"`
	Datasource  *datasource              `json:"datasource"`
	Grid        struct{ H, W, X, Y int } `json:"gridPos"`
	Field       struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []struct {
		Datasource *datasource `json:"datasource"`
		Expr       string      `json:"expr"`
	} `json:"targets"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	d := dashboard{}
	if err := json.Unmarshal(read(t, root+"/config/grafana/dashboard.json"), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 {
		t.Fatal("the dashboard has no panels")
	}
	return d
}

// The conventions of the mixins: a dashboard can be imported into any Grafana, and each panel explains itself.
func TestDashboardConventions(t *testing.T) {
	d := readDashboard(t)
	if d.ID != nil {
		t.Errorf("the dashboard has the id %d of some Grafana's database", *d.ID)
	}
	if d.UID == "" || d.Title == "" {
		t.Error("the dashboard has no uid or title")
	}
	checkVariables(t, d.Templating.List)
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q has no id of its own", p.Title)
		}
		ids[p.ID] = true
		for x := p.Grid.X; x < p.Grid.X+p.Grid.W; x++ {
			for y := p.Grid.Y; y < p.Grid.Y+p.Grid.H; y++ {
				if other, there := taken[[2]int{x, y}]; there {
					t.Fatalf("panel %q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Grid.X+p.Grid.W > 24 {
			t.Errorf("panel %q is wider than the page", p.Title)
		}
		if p.Type != "row" {
			checkPanel(t, p)
		}
	}
}

func checkVariables(t *testing.T, list []variable) {
	t.Helper()
	if len(list) != 3 || list[0].Name != "datasource" || list[0].Type != "datasource" || list[0].Query != "prometheus" {
		t.Fatalf("the variables are %+v; the first one must be the data source", list)
	}
	for i, name := range []string{"cluster", "namespace"} {
		v := list[i+1]
		if v.Name != name || v.Type != "query" || !v.Multi || !v.IncludeAll || !ours(v.Datasource) {
			t.Errorf("variable %d is %+v; it must be the %s, with all and several", i+2, v, name)
		}
		// A matcher of this value also takes in series that lack the label. The default would be the list of the values that exist.
		if v.AllValue != ".*" {
			t.Errorf("All of the variable %s stands for %q", name, v.AllValue)
		}
	}
}

// TestLinks checks that each link of the dashboard leads to a page of this repository.
func TestLinks(t *testing.T) {
	const docs = "https://github.com/wechat-token-operator/wechat-token-operator/blob/main/docs/"
	links := regexp.MustCompile(`"url": "([^"]+)"`).FindAllStringSubmatch(string(read(t, root+"/config/grafana/dashboard.json")), -1)
	if len(links) < 10 {
		t.Fatalf("the dashboard has %d links", len(links))
	}
	for _, link := range links {
		page, ours := strings.CutPrefix(link[1], docs)
		if !ours {
			t.Errorf("%s is no page of this repository", link[1])
			continue
		}
		if _, err := os.Stat(root + "/docs/" + page); err != nil {
			t.Error(err)
		}
	}
}

// ours: the data source is the variable's.
func ours(d *datasource) bool {
	return d != nil && *d == datasource{Type: "prometheus", UID: "${datasource}"}
}

var (
	rangeInQuery   = regexp.MustCompile(`\[([^\]]+)\]`)
	perResource    = regexp.MustCompile(`(wechatapptoken_(?:info|ready|suspended|condition|expiration|next_refresh|last_error|last_check|forced|foreign|ticket)\w*)(\{cluster=~"\$cluster", namespace=~"\$namespace")?`)
	selected       = regexp.MustCompile(`\b(wechat[a-z_]+|leader_election_master_status|workqueue_depth|controller_runtime_\w+|process_\w+)(\{cluster=~"\$cluster")?`)
	allowedWindows = map[string]bool{"$__rate_interval": true, "1h": true}
)

// quotedText matches the strings of a query, in which names of metrics may stand too.
var quotedText = regexp.MustCompile(`"[^"]*"`)

// keepCluster removes a string from a query, unless it is the variable for the cluster.
func keepCluster(text string) string {
	if text == `"$cluster"` {
		return text
	}
	return `""`
}

func checkPanel(t *testing.T, p panel) {
	t.Helper()
	if p.Title == "" || len(p.Description) < 20 || !strings.HasSuffix(p.Description, ".") {
		t.Errorf("panel %q has no title, or a description that is no sentence: %q", p.Title, p.Description)
	}
	if p.Field.Defaults.Unit == "" {
		t.Errorf("panel %q has no unit", p.Title)
	}
	if !ours(p.Datasource) || len(p.Targets) == 0 {
		t.Errorf("panel %q does not use the variable for its data source, or has no query", p.Title)
	}
	for _, target := range p.Targets {
		if !ours(target.Datasource) {
			t.Errorf("a query of panel %q does not use the variable for its data source", p.Title)
		}
		for _, m := range rangeInQuery.FindAllStringSubmatch(target.Expr, -1) {
			if !allowedWindows[m[1]] {
				t.Errorf("panel %q looks back %s; use $__rate_interval", p.Title, m[1])
			}
		}
		for _, m := range selected.FindAllStringSubmatch(quotedText.ReplaceAllStringFunc(target.Expr, keepCluster), -1) {
			if m[2] == "" {
				t.Errorf("panel %q shows %s of all clusters, whatever is chosen", p.Title, m[1])
			}
		}
		for _, m := range perResource.FindAllStringSubmatch(target.Expr, -1) {
			if m[2] == "" {
				t.Errorf("panel %q shows %s of all namespaces, whatever is chosen", p.Title, m[1])
			}
		}
	}
}
