// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/yaml"
)

// leastPlainRate in tokens per second: below it the machine is too busy, or too weak, for the figures to mean anything.
const leastPlainRate = 150

// report is the benchmark's JSON.
type report struct {
	StartedAt time.Time `json:"startedAt"`
	Version   string    `json:"version,omitempty"`
	Go        string    `json:"go"`
	CPUs      int       `json:"cpus"`
	// Void says why nothing here counts.
	Void    string   `json:"void,omitempty"`
	Results []result `json:"results"`
	Rows    []row    `json:"rows"`
}

func newReport(version string, now time.Time) *report {
	return &report{StartedAt: now.UTC().Truncate(time.Second), Version: version, Go: runtime.Version(), CPUs: runtime.NumCPU()}
}

// finish makes the table and judges it.
func (r *report) finish(known []exception) {
	r.Rows = table(r.Results)
	for i := range r.Rows {
		for _, e := range known {
			r.Rows[i].Excepted = r.Rows[i].Excepted || e.Row == r.Rows[i].ID
		}
	}
	for _, result := range r.Results {
		if result.Run == runPlainLoop && result.Rate < leastPlainRate {
			r.Void = fmt.Sprintf("the plain loop made %.0f tokens/s at N = %d, and below %d no figure counts: "+
				"repeat it on a machine with nothing else to do", result.Rate, result.N, leastPlainRate)
		}
	}
}

// void is an error if no figure counts.
func (r *report) void() error {
	if r.Void == "" {
		return nil
	}
	return fmt.Errorf("void: %s", r.Void)
}

// verdict is an error if the benchmark is void or a goal was missed that exceptions.yaml does not list.
func (r *report) verdict() error {
	if err := r.void(); err != nil {
		return err
	}
	missed := make([]error, 0, len(r.Rows))
	for _, row := range r.Rows {
		if row.Missed && !row.Excepted {
			missed = append(missed, fmt.Errorf("%s: %s is %s %s, the goal %s", row.ID, row.What, number(row.Value), row.Unit, row.goal()))
		}
	}
	return errors.Join(missed...)
}

func (r *report) writeJSON(path string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	return os.WriteFile(path, append(raw, '\n'), 0o600)
}

// writeTable prints goal, measured value and ratio side by side.
func (r *report) writeTable(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ROW\tWHAT\tGOAL\tMEASURED\tUNIT\tPLAIN LOOP\tRATIO\t")
	for _, row := range r.Rows {
		plain, ratio := "", ""
		if row.Plain != nil {
			plain, ratio = number(*row.Plain), number(*row.Ratio)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.ID, row.What, row.goal(), number(row.Value), row.Unit, plain, ratio, row.mark())
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for _, result := range r.Results {
		fmt.Fprintf(w, "%s/%d: API requests per token %v\n", result.Run, result.N, result.Requests)
	}
	return nil
}

func (r row) goal() string {
	switch {
	case r.Goal == nil:
		return ""
	case r.AtLeast:
		return "≥ " + number(*r.Goal)
	}
	return "≤ " + number(*r.Goal)
}

func (r row) mark() string {
	switch {
	case r.Goal == nil:
		return ""
	case r.Missed && r.Excepted:
		return "missed, known"
	case r.Missed:
		return "MISSED"
	case r.Excepted:
		return "met: take it off exceptions.yaml"
	}
	return "met"
}

// number has three significant digits, and no exponent.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10 || v <= -10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// exception is a goal that is known to be missed.
type exception struct {
	// Row is the row's ID.
	Row string `json:"row"`
	// Cause says why it is missed, Figure what was measured.
	Cause  string `json:"cause"`
	Figure string `json:"figure"`
}

// readExceptions refuses an entry that does not say why.
func readExceptions(path string) ([]exception, error) {
	var file struct {
		Exceptions []exception `json:"exceptions"`
	}
	if err := readYAML(path, &file); err != nil {
		return nil, err
	}
	for _, e := range file.Exceptions {
		if e.Row == "" || e.Cause == "" || e.Figure == "" {
			return nil, fmt.Errorf("%s: %+v needs row, cause and figure", path, e)
		}
	}
	return file.Exceptions, nil
}

func readYAML(path string, into any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(raw, into); err != nil {
		return fmt.Errorf("decoding %s: %w", path, err)
	}
	return nil
}
