package main

import (
	"fmt"
	"image/color"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// plotted is a table to plot.
type plotted struct {
	title   string
	group   []*contestant
	results map[string]*measured
}

// plotAll draws a bar chart of the CPU time per call for each table.
func plotAll(dir string, all []plotted) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for _, one := range all {
		p := plot.New()
		p.Title.Text = one.title + ": CPU of the proxy, µs per call"
		p.Y.Min = 0
		var values plotter.Values
		var names []string
		for _, c := range one.group {
			if c.rest {
				continue
			}
			values, names = append(values, median(one.results[c.name].cpu)), append(names, c.name)
		}
		bars, err := plotter.NewBarChart(values, vg.Points(28))
		if err != nil {
			return err
		}
		bars.Color = color.RGBA{
			R: 5,
			G: 80,
			B: 174,
			A: 255,
		}
		bars.LineStyle.Width = 0
		var labels plotter.XYLabels
		for n, value := range values {
			labels.XYs = append(labels.XYs, plotter.XY{X: float64(n) - 0.1, Y: value})
			labels.Labels = append(labels.Labels, fmt.Sprintf("%.0f", value))
		}
		text, err := plotter.NewLabels(labels)
		if err != nil {
			return err
		}
		p.Add(bars, text)
		p.NominalX(names...)
		name := strings.NewReplacer(" ", "-", ",", "", "/", "", ".", "").Replace(strings.ToLower(one.title)) + ".png"
		if err := p.Save(16*vg.Centimeter, 9*vg.Centimeter, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// plotSeries draws the series over the names on a logarithmic scale, which shows ratios. Values must be greater than 0.
func plotSeries(path, title string, names []string, series map[string][]float64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	p := plot.New()
	p.Title.Text = title
	p.Legend.Top = true
	p.X.Min, p.X.Max = -0.5, float64(len(names))-0.5
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	colors := []color.RGBA{
		{R: 5, G: 80, B: 174, A: 255},
		{R: 200, G: 90, B: 20, A: 255},
		{R: 90, G: 140, B: 60, A: 255},
	}
	most := 0.0
	for n, name := range slices.Sorted(maps.Keys(series)) {
		points := make(plotter.XYs, len(names))
		for i, value := range series[name] {
			points[i] = plotter.XY{X: float64(i), Y: max(value, leastPlotted)}
			most = max(most, value)
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		line.Color, dots.Color, dots.Shape, dots.Radius = colors[n%len(
			colors,
		)], colors[n%len(colors)], draw.CircleGlyph{}, vg.Points(3)
		p.Add(line, dots)
		p.Legend.Add(name, line, dots)
	}
	p.Y.Max = 4 * most // room for the legend
	p.Add(plotter.NewGrid())
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.5, float64(len(names))-0.5
	p.X.Tick.Label.Rotation = 0.9
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = -1, -0.3
	return p.Save(24*vg.Centimeter, 12*vg.Centimeter, path)
}

// leastPlotted replaces values that a logarithmic scale cannot show.
const leastPlotted = 0.1
