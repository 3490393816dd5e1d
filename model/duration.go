package model

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time. Years, months and days are calendar units in UTC.
type Duration struct {
	Years, Months, Days int
	Time                time.Duration
}

// After returns the time that is the duration after start.
func (d Duration) After(start time.Time) time.Time {
	return start.UTC().AddDate(d.Years, d.Months, d.Days).Add(d.Time)
}

// maxDurationUnits bounds the number before a calendar unit.
const maxDurationUnits = 10_000

var errDuration = errors.New("not a duration")

// ParseDuration parses a non-negative duration: Go's notation with days and weeks ("1d12h", "90m", "1.5s"; a day has
// 24 hours) or ISO 8601 ("PT15M", "P1DT12H", "P2W", "P1Y6M", where the last number may have a fraction if its unit is
// a week or smaller).
func ParseDuration(text string) (Duration, error) {
	parse := parseUnits
	if strings.HasPrefix(text, "P") {
		parse = parseISO8601
	}
	d, err := parse(text)
	if err != nil {
		return Duration{}, fmt.Errorf("%q is not a duration such as 15m, 1d12h, PT15M or P1D", text)
	}
	return d, nil
}

// daysForm matches the weeks and days before the rest of a duration in Go's notation.
var daysForm = regexp.MustCompile(`^(?:(\d+)w)?(?:(\d+)d)?(.*)$`)

func parseUnits(text string) (Duration, error) {
	parts := daysForm.FindStringSubmatch(text)
	if parts == nil {
		return Duration{}, errDuration
	}
	var d Duration
	for i, days := range []int64{7, 1} {
		n, err := calendarNumber(parts[i+1])
		if err != nil {
			return Duration{}, err
		}
		d.Time += time.Duration(n*days) * 24 * time.Hour
	}
	rest := parts[3]
	if rest == "" && text != "" {
		return d, nil
	}
	length, err := time.ParseDuration(rest)
	if err != nil || length < 0 || strings.HasPrefix(rest, "+") {
		return Duration{}, errDuration
	}
	if d.Time += length; d.Time < 0 {
		return Duration{}, errDuration
	}
	return d, nil
}

// calendarNumber parses digits (no digits mean 0), up to [maxDurationUnits].
func calendarNumber(digits string) (int64, error) {
	if digits == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > maxDurationUnits {
		return 0, errDuration
	}
	return n, nil
}

// isoForm matches ISO 8601-1:2019 §5.5.2.
var isoForm = regexp.MustCompile(
	`^P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+(?:[.,]\d+)?)W)?(?:(\d+(?:[.,]\d+)?)D)?(?:T(?:(\d+(?:[.,]\d+)?)H)?(?:(\d+(?:[.,]\d+)?)M)?(?:(\d+(?:[.,]\d+)?)S)?)?$`,
)

func parseISO8601(text string) (Duration, error) {
	parts := isoForm.FindStringSubmatch(text)
	if parts == nil || text == "P" || strings.HasSuffix(text, "T") {
		return Duration{}, errDuration
	}
	var d Duration
	for i, calendar := range []*int{&d.Years, &d.Months} {
		n, err := calendarNumber(parts[i+1])
		if err != nil {
			return Duration{}, err
		}
		*calendar = int(n)
	}
	fraction := false // the previous number had a fraction: nothing may follow
	for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour, time.Hour, time.Minute, time.Second} {
		part := strings.ReplaceAll(parts[i+3], ",", ".")
		if part == "" {
			continue
		}
		if fraction {
			return Duration{}, errDuration
		}
		whole, rest, found := strings.Cut(part, ".")
		fraction = found
		n, err := strconv.ParseInt(whole, 10, 64)
		if err != nil || n > int64(maxDurationTime/unit) {
			return Duration{}, errDuration
		}
		if unit == 24*time.Hour && !found && n <= maxDurationUnits {
			d.Days = int(n)
			continue
		}
		d.Time += time.Duration(n) * unit
		if found {
			part, err := strconv.ParseFloat("0."+rest, 64)
			if err != nil {
				return Duration{}, errDuration
			}
			d.Time += time.Duration(part * float64(unit))
		}
	}
	return d, nil
}

// maxDurationTime bounds each number of a duration in ISO 8601, so that their sum does not overflow.
const maxDurationTime = 50 * 365 * 24 * time.Hour
