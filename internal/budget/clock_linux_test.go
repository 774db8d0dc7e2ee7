package budget

import (
	"strings"
	"testing"
	"time"
)

// Where nothing but the clock on the wall tells the time, setting it back makes
// the wait begin anew.
func TestClockSetBack(t *testing.T) {
	b := open(t, t.TempDir())
	now := moment{Time: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)}
	b.clock = func() moment { return now }
	reserve(t, b, testKey, time.Minute)
	now.Time = now.Time.Add(-48 * time.Hour)
	left, spent := until(t, b, testKey, time.Minute)
	if left != time.Minute || spent.Lost == "" {
		t.Errorf("spent for %v more, %+v; want 1m, and why", left, spent)
	}
	now.Time = now.Time.Add(30 * time.Second)
	if left, _ := until(t, b, testKey, time.Minute); left != 30*time.Second {
		t.Errorf("spent for %v more, want 30s: the wait begins anew", left)
	}
	now.Time = now.Time.Add(30 * time.Second)
	reserve(t, b, testKey, time.Minute)

	if err := b.Save(testKey, 1); err != nil {
		t.Fatal(err)
	}
	now.Time = now.Time.Add(-time.Second)
	if saved, err := b.Load(testKey, new(int)); err == nil {
		t.Errorf("loaded answers of the future, %v", saved)
	}
}

// Within one boot, setting the clock neither frees nor prolongs anything.
func TestClockSet(t *testing.T) {
	for _, step := range []time.Duration{-48 * time.Hour, -time.Second, time.Minute, MaxHold, 48 * time.Hour} {
		b := open(t, t.TempDir())
		now := at(time.Now())
		b.clock = func() moment { return now }
		reserve(t, b, testKey, time.Minute)
		if err := b.Save(testKey, 1); err != nil {
			t.Fatal(err)
		}
		now.Time, now.Up = now.Time.Add(step), now.Up+20*time.Second
		left, spent := until(t, b, testKey, time.Minute)
		if left != 40*time.Second || spent.Lost != "" {
			t.Errorf("step of %v: spent for %v more, %+v; want 40s", step, left, spent)
		}
		saved, err := b.Load(testKey, new(int))
		if age := now.Time.Sub(saved); err != nil || age != 20*time.Second {
			t.Errorf("step of %v: answers %v old, %v; want 20s", step, age, err)
		}
		// Nor does another's housekeeping.
		reserve(t, b, Key{Kind: HalfOpen}, time.Minute)
		if left, _ := until(t, b, testKey, time.Minute); left != 40*time.Second {
			t.Errorf("step of %v: after another's reservation spent for %v more, want 40s", step, left)
		}
		now.Up += 40 * time.Second
		reserve(t, b, testKey, time.Minute)
	}
}

// The next boot begins its own count, so only the wall tells what has passed.
func TestReboot(t *testing.T) {
	b := open(t, t.TempDir())
	now := at(time.Now())
	b.clock = func() moment { return now }
	reserve(t, b, testKey, time.Minute)
	now = moment{Time: now.Time.Add(30 * time.Second), Boot: "two", Up: 90000 * time.Hour}
	if left, spent := until(t, b, testKey, time.Minute); left != 30*time.Second || spent.Lost != "" {
		t.Errorf("spent for %v more, %+v; want 30s", left, spent)
	}
	now.Time = now.Time.Add(30 * time.Second)
	reserve(t, b, testKey, time.Minute)
}

func TestClock(t *testing.T) {
	now := clock()
	m := now()
	if m.Time.IsZero() || m.Boot == "" || m.Up <= 0 || strings.ContainsAny(m.Boot, " \n") {
		t.Errorf("got %+v", m)
	}
	if d := now().since(m); d < 0 {
		t.Errorf("went back by %v", -d)
	}
}
