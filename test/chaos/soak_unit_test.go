// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// madeUp are the rows of two hours in which operators are killed each half an hour, so that leader and standby change places.
func madeUp(change func(minute int, row *soakRow)) (rows []soakRow) {
	for minute := 1; minute <= 120; minute++ {
		age := float64(minute % 30)
		noise := float64(minute%3) * (1 << 20)
		operator := processRow{Started: float64(minute / 30), Age: age, Memory: 100<<20 + noise, Goroutines: 200, APIRequests: 1500}
		if age < 5 {
			operator.Memory, operator.APIRequests = 300<<20, 9000 // a start
		}
		leader, standby := operator, operator
		leader.Name, leader.Role, standby.Name, standby.Role = "a", roleLeader, "b", roleStandby
		if minute/30%2 == 1 {
			leader.Name, standby.Name = "b", "a"
		}
		row := soakRow{
			Minute: minute, Samples: 300000, GatewayCalls: 120,
			Processes: []processRow{leader, standby, {
				Name: "gateway-0", Role: roleGateway, Age: float64(minute), Memory: 40 << 20, Goroutines: 60, APIRequests: 6,
			}},
		}
		change(minute, &row)
		rows = append(rows, row)
	}
	return rows
}

// The judgement of a soak fails for each thing that must not happen, and for nothing else.
func TestJudgeSoak(t *testing.T) {
	const leader, gateway = 0, 2
	for name, tc := range map[string]struct {
		change func(minute int, row *soakRow)
		// short: the run is too short for growth to count.
		short bool
		want  string
	}{
		"nothing grows": {change: func(int, *soakRow) {}},
		"more by 9 %": {change: func(minute int, row *soakRow) {
			if minute > 90 {
				row.Processes[leader].Memory *= 1.09
			}
		}},
		"one late row is large": {change: func(minute int, row *soakRow) {
			if minute == 100 {
				row.Processes[leader].Memory *= 3
			}
		}},
		"young processes need more late": {change: func(minute int, row *soakRow) {
			if minute > 90 && row.Processes[leader].Age < 5 {
				row.Processes[leader].Memory *= 2
			}
		}},
		"one request more": {change: func(minute int, row *soakRow) {
			if minute > 60 {
				row.Processes[gateway].APIRequests++
			}
		}},
		"memory of the leader": {want: "leader: MiB grew by 12", change: func(minute int, row *soakRow) {
			if minute > 60 {
				row.Processes[leader].Memory *= 1.12
			}
		}},
		"goroutines of the gateway": {want: "gateway: goroutines grew by", change: func(minute int, row *soakRow) {
			row.Processes[gateway].Goroutines += float64(minute)
		}},
		"API requests": {want: "leader: API requests/minute grew by 20", change: func(minute int, row *soakRow) {
			if minute > 60 {
				row.Processes[leader].APIRequests *= 1.2
			}
		}},
		"API requests in bursts": {change: func(minute int, row *soakRow) {
			if minute%10 == 0 {
				row.Processes[gateway].APIRequests += 60
			}
			if minute == 105 {
				row.Processes[gateway].APIRequests += 60
			}
		}},
		"more and more API requests in bursts": {want: "gateway: API requests/minute grew by", change: func(minute int, row *soakRow) {
			if minute%10 == 0 {
				row.Processes[gateway].APIRequests += 20
			}
			row.Processes[gateway].APIRequests += float64(minute) / 5
		}},
		// Each process begins anew, so that the quarters of the run show nothing.
		"a leak that each restart ends": {want: "% within the lives of processes", change: func(_ int, row *soakRow) {
			row.Processes[leader].Memory += row.Processes[leader].Age * (3 << 20)
		}},
		"no leader for long enough": {want: "leader: no MiB to compare", change: func(_ int, row *soakRow) { row.Processes[leader].Age = 1 }},
		"API requests that vary within a life": {change: func(_ int, row *soakRow) {
			row.Processes[leader].APIRequests += 10 * row.Processes[leader].Age
		}},
		"an invalid sample": {want: "1 invalid samples", change: func(minute int, row *soakRow) {
			if minute == 3 {
				row.Invalid = 1
			}
		}},
		"an invalid sample of a short run": {want: "1 invalid samples", short: true, change: func(minute int, row *soakRow) {
			if minute == 3 {
				row.Invalid = 1
			}
		}},
		"a call that no fault explains": {want: "1 calls through the gateway failed", change: func(minute int, row *soakRow) {
			if minute == 3 {
				row.Failed, row.Unexplained = 1, 1
			}
		}},
		"a call that a fault explains": {change: func(_ int, row *soakRow) { row.Failed = 1 }},
		"no samples":                   {want: "proves nothing", change: func(_ int, row *soakRow) { row.Samples = 0 }},
		"growth of a short run": {short: true, change: func(minute int, row *soakRow) {
			row.Processes[leader].Memory *= float64(minute)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			err := judgeSoak(io.Discard, madeUp(tc.change), 5, !tc.short)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// A row has rates only if the process was there, in the same role, a minute before.
func TestLookAt(t *testing.T) {
	metrics := "# HELP x\nrest_client_requests_total{code=\"200\"} 40\nrest_client_requests_total{code=\"409\",note=\"a b\"} 2\n" +
		"process_start_time_seconds 7\nprocess_resident_memory_bytes 1.5e+07\ngo_goroutines 90\nleader_election_master_status{name=\"x\"} 1\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, metrics) }))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	first, err := lookAt("a", address, false, processRow{})
	if err != nil || first.Role != roleLeader || first.Memory != 1.5e7 || first.Goroutines != 90 || first.Age != 0 || first.APIRequests != 0 {
		t.Fatalf("got %+v, %v", first, err)
	}
	last := first
	last.allRequests, last.at = 2, first.at.Add(-2*60e9)
	again, err := lookAt("a", address, false, last)
	if err != nil || again.APIRequests < 19 || again.APIRequests > 20 || again.Age < 2 {
		t.Errorf("after two minutes with 40 requests: got %+v, %v", again, err)
	}
	for what, change := range map[string]func(*processRow){
		"another process": func(p *processRow) { p.Started = 6 }, "another role": func(p *processRow) { p.Role = roleStandby },
	} {
		other := last
		change(&other)
		if p, err := lookAt("a", address, false, other); err != nil || p.Age != 0 || p.APIRequests != 0 {
			t.Errorf("%s: got %+v, %v", what, p, err)
		}
	}
}
