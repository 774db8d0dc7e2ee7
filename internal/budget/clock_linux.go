package budget

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// moment is a point in time by two clocks. That on the wall can be set, also by
// whoever answers NTP; the other only runs, but no longer than one boot.
type moment struct {
	Time time.Time     `json:"time"`
	Boot string        `json:"boot,omitempty"` // the boot's id; "" when it is not known
	Up   time.Duration `json:"up,omitempty"`   // since then, in ns, sleep included
}

// since returns the time from an earlier moment to m, by the wall only when the
// two are not known to be of one boot. It is negative where a clock was set
// back.
func (m moment) since(earlier moment) time.Duration {
	if m.Boot != "" && m.Boot == earlier.Boot {
		return m.Up - earlier.Up
	}
	return m.Time.Sub(earlier.Time)
}

// clock returns the clock of this boot.
func clock() func() moment {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it there is the wall
	boot := strings.TrimSpace(string(id))
	began, _ := upTime()
	start := time.Now()
	return func() moment {
		// Go's own clock stands still while the host sleeps, so it is never
		// ahead, but in virtual time (package testing/synctest) it alone runs.
		least := began + time.Since(start)
		// Without its monotonic reading, which does not leave this process.
		m := moment{Time: time.Now().Round(0)}
		if up, err := upTime(); err == nil {
			m.Boot, m.Up = boot, max(up, least)
		}
		return m
	}
}

// upTime returns the time since boot.
func upTime() (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return time.Duration(t.Nano()), err
}
