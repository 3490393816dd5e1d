package model

import (
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	// defaultRetry is the default time for which a step is retried.
	defaultRetry = 24 * time.Hour
	// maxRetry bounds it.
	maxRetry = 30 * 24 * time.Hour
	// maxRetryAttempts bounds a step's attempts.
	maxRetryAttempts = 1000
)

// Retry bounds the retries of a step that fails without being refused.
type Retry struct {
	// For is the time after its first failure for which a step is retried; 0: one day.
	For time.Duration
	// Attempts bounds the attempts; 0: only the time does.
	Attempts int
}

// Within returns the time after its first failure for which a step is retried.
func (r Retry) Within() time.Duration {
	if r.For == 0 {
		return defaultRetry
	}
	return r.For
}

func (p *parser) retry(n *yaml.Node, path string) Retry {
	var r Retry
	for key, value := range p.members(n, path, "for", "attempts") {
		path := join(path, key.Value)
		text, ok := p.scalar(value, path)
		if !ok {
			continue
		}
		switch key.Value {
		case "for":
			length, err := retryLength(text)
			if err != nil || length <= 0 || length > maxRetry {
				p.reject(value, path, "%q is not a duration of up to 30 days such as 90s, 12h or 1d", text)
				continue
			}
			r.For = length
		case "attempts":
			count, err := strconv.Atoi(text)
			if err != nil || count < 1 || count > maxRetryAttempts {
				p.reject(value, path, "%q is not a number of attempts from 1 to %d", text, maxRetryAttempts)
				continue
			}
			r.Attempts = count
		}
	}
	return r
}

// retryLength parses a duration such as 90s, 12h or 1d.
func retryLength(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if n > int(maxRetry/(24*time.Hour)) {
			n = int(maxRetry/(24*time.Hour)) + 1 // too long in any case
		}
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}
