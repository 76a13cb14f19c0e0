// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"image/color"
	"io"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// soakRow is the part of a minute of make soak that is drawn.
type soakRow struct {
	Minute    float64 `json:"minute"`
	Processes []struct {
		Role        string  `json:"role"`
		Age         float64 `json:"age"`
		Memory      float64 `json:"memoryBytes"`
		Goroutines  float64 `json:"goroutines"`
		APIRequests float64 `json:"apiRequests"`
	} `json:"processes"`
}

// soakPanels are drawn one below the other. Of two processes with the same role, the one that uses more is drawn.
var soakPanels = []struct {
	title string
	value func(row soakRow, i int) float64
}{
	{"Resident memory in MiB", func(row soakRow, i int) float64 { return row.Processes[i].Memory / mebibyte }},
	{"Goroutines", func(row soakRow, i int) float64 { return row.Processes[i].Goroutines }},
	{"API requests per minute", func(row soakRow, i int) float64 { return row.Processes[i].APIRequests }},
}

func drawSoak(from, to string) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	var rows []soakRow
	for in := json.NewDecoder(file); ; {
		var row soakRow
		if err := in.Decode(&row); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return errors.New("there are no rows in it")
	}
	canvas := vgsvg.New(width, 0.7*height*vg.Length(len(soakPanels)))
	tiles := draw.Tiles{Rows: len(soakPanels), Cols: 1, PadTop: vg.Millimeter, PadBottom: vg.Millimeter, PadRight: 3 * vg.Millimeter, PadY: 4 * vg.Millimeter}
	for i, panel := range soakPanels {
		p := plot.New()
		p.BackgroundColor = color.White
		p.Add(plotter.NewGrid())
		p.Title.Text, p.X.Label.Text = panel.title, "minutes"
		p.X.Min, p.Y.Min = 0, 0
		p.Legend.Top = true
		var lines []any
		for _, role := range []string{"leader", "standby", "gateway"} {
			lines = append(lines, role, points(rows, role, panel.value))
		}
		if err := plotutil.AddLines(p, lines...); err != nil {
			return err
		}
		p.Y.Max *= 1.5 // room for the legend
		p.Draw(tiles.At(draw.New(canvas), 0, i))
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(out)
	return errors.Join(err, out.Close())
}

// points leave out the first minute of each process in its role, in which it has no rates.
func points(rows []soakRow, role string, value func(soakRow, int) float64) (xys plotter.XYs) {
	for _, row := range rows {
		most, found := 0.0, false
		for i, p := range row.Processes {
			if p.Role == role && p.Age > 0 {
				most, found = max(most, value(row, i)), true
			}
		}
		if found {
			xys = append(xys, plotter.XY{X: row.Minute, Y: most})
		}
	}
	return xys
}
