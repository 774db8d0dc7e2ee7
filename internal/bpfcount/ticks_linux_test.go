package bpfcount

import (
	"testing"
	"time"
)

// TestTicks tells the time of ticks of 4 ms, the first of which was at 1 ms.
func TestTicks(t *testing.T) {
	const ms = time.Millisecond
	c := ticks{tick: 4 * ms}
	for _, step := range []struct {
		count     uint64
		monotonic time.Duration
		want      time.Duration // of tick 100
	}{
		{10, 44 * ms, 404 * ms}, // 3 ms behind the tick
		{20, 82 * ms, 402 * ms},
		{30, 123 * ms, 402 * ms},   // later than that tells nothing
		{40, 161 * ms, 401 * ms},   // right behind it
		{50, 209 * ms, 401 * ms},   // as late as two ticks
		{60, 1241 * ms, 1401 * ms}, // 250 ticks were left out
		{1000, 5001 * ms, 1401 * ms},
	} {
		c.now(step.count, step.monotonic)
		if got := c.at(100); got != step.want {
			t.Errorf("at %v, tick %d: tick 100 was at %v, want %v", step.monotonic, step.count, got, step.want)
		}
	}
}
