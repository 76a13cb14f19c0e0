// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
)

// expectation is a range in which a figure must be. It bounds the ratio to the plain loop, or the value itself where
// that does not depend on the machine.
type expectation struct {
	// Row is the row's ID.
	Row string `json:"row"`
	// Of is "ratio" or "value".
	Of  string  `json:"of"`
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

func readRanges(path string) ([]expectation, error) {
	var file struct {
		Ranges []expectation `json:"ranges"`
	}
	if err := readYAML(path, &file); err != nil {
		return nil, err
	}
	for _, e := range file.Ranges {
		if e.Row == "" || e.Of != "ratio" && e.Of != "value" || e.Min > e.Max {
			return nil, fmt.Errorf("%s: %+v needs row, of (ratio or value) and min up to max", path, e)
		}
	}
	return file.Ranges, nil
}

// compare finds the figures that left their range, and the ranges that nothing was measured for.
func (r *report) compare(ranges []expectation) error {
	if err := r.void(); err != nil {
		return err
	}
	byID := map[string]row{}
	for _, row := range r.Rows {
		byID[row.ID] = row
	}
	errs := make([]error, 0, len(ranges))
	for _, e := range ranges {
		row, measured := byID[e.Row]
		value := row.Value
		if e.Of == "ratio" && row.Ratio != nil {
			value = *row.Ratio
		}
		switch {
		case !measured || e.Of == "ratio" && row.Ratio == nil:
			errs = append(errs, fmt.Errorf("%s: no %s was measured; correct the row in ranges.yaml", e.Row, e.Of))
		case value < e.Min || value > e.Max:
			errs = append(errs, fmt.Errorf("%s: the %s of %q is %s, and its range %s to %s",
				e.Row, e.Of, row.What, number(value), number(e.Min), number(e.Max)))
		}
	}
	return errors.Join(errs...)
}
