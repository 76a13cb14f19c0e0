// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	// mostGrowth is by how much a figure of the last quarter may exceed that of the second one.
	mostGrowth = 0.10
	// leastGrowth is below what a difference is none: an idle gateway makes six API requests in a minute.
	leastGrowth = 2
	// leastLife is how many rows a life of a process must have for its own quarters to be compared.
	leastLife = 8

	roleLeader  = "leader"
	roleStandby = "standby"
	roleGateway = "gateway"
)

// soakRow is what a minute of the soak showed.
type soakRow struct {
	Minute    int          `json:"minute"`
	At        time.Time    `json:"at"`
	Processes []processRow `json:"processes"`
	Resources int          `json:"resources"`
	// Tokens and WeChatCalls are what the stand-in issued and answered in the minute.
	Tokens      int `json:"tokens"`
	WeChatCalls int `json:"weChatCalls"`
	// Samples, Excluded and Invalid are those of the minute that is judged now, which began judgedAfter ago. The last row has the rest.
	Samples  int `json:"samples"`
	Excluded int `json:"excluded"`
	Invalid  int `json:"invalid"`
	// GatewayCalls counts calls through the gateway, Failed those that failed, and Unexplained those of them that no fault explains.
	GatewayCalls int `json:"gatewayCalls"`
	Failed       int `json:"failed"`
	Unexplained  int `json:"unexplained"`
	// Faults are those that were under way in the minute.
	Faults []string `json:"faults"`
}

// processRow is what the metrics of a process said.
type processRow struct {
	Name string `json:"name"`
	Role string `json:"role"`
	// Started is when the process started, in seconds since 1970, and Age for how many minutes it has had its role. At 0 there are no rates.
	Started    float64 `json:"started"`
	Age        float64 `json:"age"`
	Memory     float64 `json:"memoryBytes"`
	Goroutines float64 `json:"goroutines"`
	// APIRequests and WeChatCalls are those per minute.
	APIRequests float64 `json:"apiRequests"`
	WeChatCalls float64 `json:"weChatCalls"`

	at                 time.Time
	allRequests, calls float64
}

// lookAt reads the metrics of a process, of which the last row may be known.
func lookAt(name, address string, gateway bool, last processRow) (processRow, error) {
	m, err := scrape(address)
	if err != nil {
		return processRow{}, err
	}
	row := processRow{
		Name: name, Role: roleStandby, Started: m["process_start_time_seconds"], Memory: m["process_resident_memory_bytes"],
		Goroutines: m["go_goroutines"], at: time.Now(), allRequests: m["rest_client_requests_total"], calls: m["wechat_api_requests_total"],
	}
	switch {
	case gateway:
		row.Role, row.calls = roleGateway, m["wechat_gateway_upstream_duration_seconds_count"]
	case m["leader_election_master_status"] > 0:
		row.Role = roleLeader
	}
	if row.Started == last.Started && row.Role == last.Role {
		minutes := row.at.Sub(last.at).Minutes()
		row.Age = last.Age + minutes
		row.APIRequests, row.WeChatCalls = (row.allRequests-last.allRequests)/minutes, (row.calls-last.calls)/minutes
	}
	return row, nil
}

// scrape reads metrics, and adds up those that differ in labels only.
func scrape(address string) (map[string]float64, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, errors.New(res.Status)
	}
	sums := map[string]float64{}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		end, space := strings.IndexAny(line, "{ "), strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || end < 0 {
			continue
		}
		if value, err := strconv.ParseFloat(line[space+1:], 64); err == nil {
			sums[line[:end]] += value
		}
	}
	return sums, lines.Err()
}

// figure is what must not grow.
type figure struct {
	name string
	of   func(processRow) float64
	// typical is the value of many rows: the median of levels, and the mean of what is counted, because requests come in bursts.
	typical func([]float64) float64
	// inLives: it is steady enough to be compared within the lives of processes, whose quarters are short.
	inLives bool
}

func figures() []figure {
	return []figure{
		{"MiB", func(p processRow) float64 { return p.Memory / (1 << 20) }, median, true},
		{"goroutines", func(p processRow) float64 { return p.Goroutines }, median, true},
		{"API requests/minute", func(p processRow) float64 { return p.APIRequests }, mean, false},
	}
}

// growth is a figure of one role over the run.
type growth struct {
	role, what string
	// second and last are what it was in the second and in the last quarter of the run. A process counts only from an age on, so that
	// restarts in one of them do not matter.
	second, last float64
	// chance is how far the two may be apart by chance: three standard errors of what is counted, because requests come in bursts. It is 0
	// for levels.
	chance float64
	// lives is by how much it grew from the second quarter of the lives of processes to the last one, NaN if no life was long enough.
	lives float64
}

// compare gives the growth of each figure, of processes that have had their role for so many minutes.
func compare(rows []soakRow, age float64) (out []growth) {
	second, last := quarters(rows)
	for _, role := range []string{roleLeader, roleStandby, roleGateway} {
		for _, f := range figures() {
			of := func(rows []soakRow) []float64 { return f.values(slices.Concat(livesOf(rows, role, age)...)) }
			before, after := of(second), of(last)
			g := growth{role: role, what: f.name, second: f.typical(before), last: f.typical(after)}
			if !f.inLives {
				g.chance = 3 * math.Hypot(standardError(before), standardError(after))
			}
			var early, late []float64
			for _, life := range livesOf(rows, role, age) {
				if f.inLives && len(life) >= leastLife {
					second, last := quarters(life)
					early, late = append(early, f.values(second)...), append(late, f.values(last)...)
				}
			}
			g.lives = grown(f.typical(early), f.typical(late))
			out = append(out, g)
		}
	}
	return out
}

func (f figure) values(rows []processRow) (values []float64) {
	for _, p := range rows {
		values = append(values, f.of(p))
	}
	return values
}

// grown is by what share a figure grew or shrank.
func grown(before, after float64) float64 {
	if after > before && after-before < leastGrowth {
		return 0
	}
	return after/before - 1
}

// livesOf groups the rows of one role by the process that they are of.
func livesOf(rows []soakRow, role string, age float64) [][]processRow {
	lives := map[string][]processRow{}
	for _, row := range rows {
		for _, p := range row.Processes {
			if p.Role == role && p.Age >= age && p.Age > 0 {
				key := fmt.Sprintf("%s %f", p.Name, p.Started)
				lives[key] = append(lives[key], p)
			}
		}
	}
	return slices.Collect(maps.Values(lives))
}

// quarters are the second and the last quarter.
func quarters[T any](of []T) (second, last []T) {
	n := len(of)
	return of[n/4 : n/2], of[n*3/4:]
}

// median is NaN without values.
func median(of []float64) float64 {
	if len(of) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(of))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// mean is NaN without values.
func mean(of []float64) float64 {
	sum := 0.0
	for _, v := range of {
		sum += v
	}
	return sum / float64(len(of))
}

// standardError is that of the mean.
func standardError(of []float64) float64 {
	average, squares := mean(of), 0.0
	for _, v := range of {
		squares += (v - average) * (v - average)
	}
	return math.Sqrt(squares) / float64(len(of))
}

// failed is an error if the figure grew, or if there is nothing to compare.
func (g growth) failed() error {
	change := grown(g.second, g.last)
	switch {
	case math.IsNaN(change):
		return fmt.Errorf("%s: no %s to compare: no process had the role for long enough", g.role, g.what)
	case change > mostGrowth && g.last-g.second > g.chance:
		return fmt.Errorf("%s: %s grew by %.1f %% from the second quarter of the run to the last one, at most %.0f %% are allowed",
			g.role, g.what, change*100, mostGrowth*100)
	case g.lives > mostGrowth:
		return fmt.Errorf("%s: %s grew by %.1f %% within the lives of processes, at most %.0f %% are allowed",
			g.role, g.what, g.lives*100, mostGrowth*100)
	}
	return nil
}

// judgeSoak prints the tables of a run and returns what failed it. Growth counts only if the run was long enough for that.
func judgeSoak(w io.Writer, rows []soakRow, age float64, longEnough bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "quarter\tminutes\ttokens\tcalls to WeChat\tsamples\texcluded\tinvalid\tcalls through the gateway\tfailed\tunexplained")
	var sum soakRow
	for i := range 4 {
		quarter := rows[len(rows)*i/4 : len(rows)*(i+1)/4]
		var q soakRow
		for _, row := range quarter {
			q.add(row)
		}
		q.print(t, strconv.Itoa(i+1), len(quarter))
		sum.add(q)
	}
	sum.print(t, "all", len(rows))
	fmt.Fprintln(t, "\nrole\tfigure\tsecond quarter\tlast quarter\tchange\tby chance\twithin a life")
	var errs []error
	for _, g := range compare(rows, age) {
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%.1f\t%s\t%s\t%s\n", g.role, g.what, g.second, g.last, percent(grown(g.second, g.last)),
			percent(g.chance/g.second), percent(g.lives))
		if longEnough {
			errs = append(errs, g.failed())
		}
	}
	_ = t.Flush()
	if !longEnough {
		fmt.Fprintln(w, "The run was too short to judge growth.")
	}
	if sum.Samples == 0 || sum.GatewayCalls == 0 {
		errs = append(errs, errors.New("no samples or no calls through the gateway, so this run proves nothing"))
	}
	if sum.Invalid > 0 {
		errs = append(errs, fmt.Errorf("%d invalid samples", sum.Invalid))
	}
	if sum.Unexplained > 0 {
		errs = append(errs, fmt.Errorf("%d calls through the gateway failed while no fault was under way", sum.Unexplained))
	}
	return errors.Join(errs...)
}

func percent(change float64) string {
	if math.IsNaN(change) {
		return "-"
	}
	return fmt.Sprintf("%+.1f %%", change*100)
}

func (r *soakRow) add(o soakRow) {
	r.Tokens, r.WeChatCalls = r.Tokens+o.Tokens, r.WeChatCalls+o.WeChatCalls
	r.Samples, r.Excluded, r.Invalid = r.Samples+o.Samples, r.Excluded+o.Excluded, r.Invalid+o.Invalid
	r.GatewayCalls, r.Failed, r.Unexplained = r.GatewayCalls+o.GatewayCalls, r.Failed+o.Failed, r.Unexplained+o.Unexplained
}

func (r *soakRow) print(w io.Writer, name string, minutes int) {
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", name, minutes, r.Tokens, r.WeChatCalls, r.Samples, r.Excluded, r.Invalid,
		r.GatewayCalls, r.Failed, r.Unexplained)
}
