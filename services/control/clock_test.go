package control

import (
	"math/rand/v2"
	"testing"
	"time"
)

// clock is a node's wall clock in a simulation: it is ahead of the true time, or behind it, and is set at times.
type clock struct{ offset time.Duration }

func (c *clock) at(now time.Time) time.Time { return now.Add(c.offset) }

// set sets a clock by minutes or hours, or a bit, as NTP does.
func (c *clock) set(random *rand.Rand) {
	steps := []time.Duration{
		0, time.Second / 3, -time.Second / 3, time.Minute, -time.Minute, time.Hour, -time.Hour, 12 * time.Hour,
		-12 * time.Hour,
	}
	c.offset = steps[random.IntN(len(steps))]
}

// Three control nodes whose clocks differ, and are set, drive a move that never ends. One that drives it dies: another
// one continues within three leases. While clocks are right, one node at a time drives it.
func TestDrive_LeasesEndWhateverClocksShow(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 7))
		right := seed%4 == 0 // all clocks are
		var (
			clocks [3]clock
			alive  = [3]bool{true, true, true}
			m      move
		)
		names := [3]string{"k1", "k2", "k3"}
		now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		driven := now
		for range 600 {
			now = now.Add(lease / 6)
			if !right && random.IntN(20) == 0 {
				clocks[random.IntN(3)].set(random)
			}
			if n := random.IntN(3); random.IntN(15) == 0 {
				alive[n] = !alive[n]
			}
			drivers := 0
			for _, n := range random.Perm(3) {
				if !alive[n] || m.drivenByOther(names[n], clocks[n].at(now)) {
					continue
				}
				if drivers++; m.Owner == names[n] || drivers == 1 {
					m.own(names[n], clocks[n].at(now))
					driven = now
				}
			}
			if alive == [3]bool{} {
				driven = now
			}
			if right && drivers > 1 {
				t.Fatalf("seed %d: %d control nodes drive the move", seed, drivers)
			}
			if idle := now.Sub(driven); idle > 3*lease {
				t.Fatalf(
					"seed %d: no control node has driven the move for %v: clocks %+v, owner %s until %v, now %v", seed,
					idle, clocks, m.Owner, m.Lease, now,
				)
			}
		}
	}
}
