// SPDX-License-Identifier: Apache-2.0

// benchplot draws the figures of test/bench's JSON as SVG: memory against the number of resources, the rate beside the plain
// loop's, and the lateness of a rotation. From the rows of a soak, *.jsonl, it draws what each process used over time.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"sort"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

const (
	width, height = 16 * vg.Centimeter, 10 * vg.Centimeter
	mebibyte      = 1 << 20
)

// report is the part of the benchmark's JSON that is drawn.
type report struct {
	Void    string   `json:"void"`
	Results []result `json:"results"`
}

type result struct {
	Run    string  `json:"run"`
	N      int     `json:"n"`
	Rate   float64 `json:"rate"`
	Memory struct {
		Resident float64 `json:"resident"`
		Peak     float64 `json:"peak"`
	} `json:"memory"`
	Lateness *struct {
		// Percentiles are the values that 0 % to 100 % of all do not exceed.
		Percentiles []float64 `json:"percentiles"`
	} `json:"latenessSeconds"`
}

func main() {
	out := flag.String("out", ".", "folder for the SVG files")
	flag.Parse()
	if err := run(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "benchplot:", err)
		os.Exit(1)
	}
}

func run(out string, files []string) error {
	if len(files) == 0 {
		return errors.New("name one or more JSON files of make bench or make soak")
	}
	var results []result
	for _, file := range files {
		if filepath.Ext(file) == ".jsonl" {
			if err := drawSoak(file, filepath.Join(out, "soak.svg")); err != nil {
				return fmt.Errorf("drawing %s: %w", file, err)
			}
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var r report
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("decoding %s: %w", file, err)
		}
		if r.Void != "" {
			return fmt.Errorf("%s is void: %s", file, r.Void)
		}
		results = append(results, r.Results...)
	}
	if len(results) == 0 {
		return nil
	}
	sort.SliceStable(results, func(i, j int) bool { return results[i].N < results[j].N })
	for name, draw := range map[string]func(*plot.Plot, []result) error{
		"memory.svg": drawMemory, "rate.svg": drawRate, "lateness.svg": drawLateness,
	} {
		p := plot.New()
		p.BackgroundColor = color.White
		p.Add(plotter.NewGrid())
		if err := draw(p, results); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := p.Save(width, height, filepath.Join(out, name)); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}

func drawMemory(p *plot.Plot, results []result) error {
	p.Title.Text = "Memory of the operator"
	p.X.Label.Text, p.Y.Label.Text = "WeChatAppTokens", "MiB"
	p.Y.Min, p.X.Min = 0, 0
	p.Legend.Top, p.Legend.Left = true, true
	var lines []any
	for _, run := range []string{"cold", "restart"} {
		var resident, peak plotter.XYs
		for _, r := range results {
			if r.Run == run {
				resident = append(resident, plotter.XY{X: float64(r.N), Y: r.Memory.Resident / mebibyte})
				peak = append(peak, plotter.XY{X: float64(r.N), Y: r.Memory.Peak / mebibyte})
			}
		}
		if len(resident) > 0 {
			lines = append(lines, run+", resident", resident, run+", peak", peak)
		}
	}
	return plotutil.AddLinePoints(p, lines...)
}

func drawRate(p *plot.Plot, results []result) error {
	p.Title.Text = "Tokens per second, first token to last"
	p.X.Label.Text, p.Y.Label.Text = "WeChatAppTokens", "tokens/s"
	p.Y.Min, p.X.Min = 0, 0
	var lines []any
	for _, run := range []struct{ name, label string }{{"plain", "plain loop"}, {"cold", "operator, cold start"}} {
		var points plotter.XYs
		for _, r := range results {
			if r.Run == run.name {
				points = append(points, plotter.XY{X: float64(r.N), Y: r.Rate})
			}
		}
		if len(points) > 0 {
			lines = append(lines, run.label, points)
		}
	}
	return plotutil.AddLinePoints(p, lines...)
}

func drawLateness(p *plot.Plot, results []result) error {
	p.Title.Text = "Lateness of rotations"
	p.X.Label.Text, p.Y.Label.Text = "share of tokens in %", "seconds after refresh.DueAt"
	p.Y.Min, p.X.Min, p.X.Max = 0, 0, 100
	p.Legend.Top, p.Legend.Left = true, true
	var lines []any
	for _, r := range results {
		if r.Lateness == nil {
			continue
		}
		points := make(plotter.XYs, 0, len(r.Lateness.Percentiles))
		for percent, seconds := range r.Lateness.Percentiles {
			points = append(points, plotter.XY{X: float64(percent), Y: seconds})
		}
		lines = append(lines, fmt.Sprintf("%s of %d tokens", r.Run, r.N), points)
	}
	return plotutil.AddLines(p, lines...)
}
