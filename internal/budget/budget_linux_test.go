package budget

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

var testKey = Key{
	Source: netip.MustParseAddr("203.0.113.2"),
	Peer:   netip.MustParseAddr("198.51.100.2"),
	Kind:   HalfOpen,
}

// envRacer makes the test binary one of the racers of TestProcesses.
const envRacer = "VPNPROBE_BUDGET_RACER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envRacer); dir != "" {
		os.Exit(race(dir))
	}
	os.Exit(m.Run())
}

// race waits for the start and tries to take the slot; its exit status says
// whether it got it.
func race(dir string) int {
	b, err := Open(dir)
	if err != nil {
		os.Stderr.WriteString(err.Error())
		return 2
	}
	os.Stdout.WriteString("ready\n")
	os.Stdin.Read(make([]byte, 1)) // until the pipe closes
	_, err = b.Reserve(testKey, time.Hour)
	switch {
	case err == nil:
		return 0
	case isSpent(err):
		return 1
	}
	os.Stderr.WriteString(err.Error())
	return 2
}

func isSpent(err error) bool {
	var spent *SpentError
	return errors.As(err, &spent)
}

// TestProcesses has several processes ask for one slot at once, each of which
// then ends: one gets it, and no later one does.
func TestProcesses(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	start, gate, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer start.Close()
	var racers []*exec.Cmd
	for range 6 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), envRacer+"="+dir)
		cmd.Stdin, cmd.Stderr = start, os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		racers = append(racers, cmd)
	}
	gate.Close()
	won := 0
	for _, cmd := range racers {
		switch err := cmd.Wait(); {
		case err == nil:
			won++
		case cmd.ProcessState.ExitCode() != 1:
			t.Errorf("a racer could not look: %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d processes got the one slot", won)
	}
	if _, err := open(t, dir).Reserve(testKey, time.Hour); !isSpent(err) {
		t.Errorf("after they ended the slot is free: %v", err)
	}
}

func open(t *testing.T, dirs ...string) *Budget {
	t.Helper()
	b, err := Open(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	b.clock = func() moment { return at(time.Now()) } // which may be virtual
	return b
}

// at returns a time of one boot, by clocks that agree.
func at(wall time.Time) moment {
	return moment{Time: wall.Round(0), Boot: "one", Up: wall.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) + time.Hour}
}

func reserve(t *testing.T, b *Budget, k Key, hold time.Duration) *Reservation {
	t.Helper()
	r, err := b.Reserve(k, hold)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// until expects the budget to be spent, and returns how long yet.
func until(t *testing.T, b *Budget, k Key, hold time.Duration) (time.Duration, *SpentError) {
	t.Helper()
	_, err := b.Reserve(k, hold)
	var spent *SpentError
	if !errors.As(err, &spent) {
		t.Fatalf("not spent: %v", err)
	}
	return spent.Until.Sub(b.clock().Time), spent
}

func TestReserve(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, dir)
		reserve(t, b, testKey, time.Minute)
		time.Sleep(20 * time.Second)
		if left, _ := until(t, b, testKey, time.Minute); left != 40*time.Second {
			t.Errorf("spent for %v more, want 40s", left)
		}
		// Being refused spends nothing, and a restart forgets nothing.
		b = open(t, dir)
		if left, _ := until(t, b, testKey, time.Minute); left != 40*time.Second {
			t.Errorf("after a restart spent for %v more, want 40s", left)
		}
		// Each has its own: another peer, source, kind.
		for _, other := range []Key{
			{Source: testKey.Source, Peer: netip.MustParseAddr("198.51.100.3"), Kind: HalfOpen},
			{Source: netip.MustParseAddr("203.0.113.3"), Peer: testKey.Peer, Kind: HalfOpen},
			{Source: testKey.Source, Peer: testKey.Peer, Kind: Authenticated},
			{Peer: testKey.Peer, Kind: HalfOpen},
			{Source: netip.MustParseAddr("fe80::1%../../a b"), Peer: netip.MustParseAddr("2001:db8::1"), Kind: HalfOpen},
		} {
			reserve(t, b, other, time.Minute)
		}
		// But an address has one budget, however it is written.
		mapped := Key{Source: netip.MustParseAddr("::ffff:203.0.113.2"), Peer: testKey.Peer, Kind: HalfOpen}
		until(t, b, mapped, time.Minute)

		time.Sleep(40*time.Second - 1)
		until(t, b, testKey, time.Minute)
		time.Sleep(time.Nanosecond)
		reserve(t, b, testKey, time.Minute)
	})
}

func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, t.TempDir())
		first := reserve(t, b, testKey, time.Minute)
		first.Release()
		second := reserve(t, b, testKey, time.Minute)
		first.Release() // it is not the first one's any more
		until(t, b, testKey, time.Minute)

		// What was before comes back, not the absence of everything.
		time.Sleep(2 * time.Minute)
		reserve(t, b, testKey, time.Minute).Release()
		if left, _ := until(t, b, testKey, 3*time.Minute); left != time.Minute {
			t.Errorf("spent for %v more, want 1m", left)
		}
		second.Release()
		second.Release()
		reserve(t, b, testKey, time.Hour)
		(*Reservation)(nil).Release()
	})
}

func TestDamage(t *testing.T) {
	for name, damage := range map[string]string{
		"empty":     "",
		"truncated": `{"time":"2026-01-02T12:0`,
		"other":     `[1,2]`,
		"no time":   `{"id":"x"}`,
		"no id":     `{"time":"2026-01-02T12:00:00Z"}`,
		"large":     strings.Repeat(" ", maxRecord+1),
		"binary":    "\x00\xff\x00",
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, t.TempDir())
			now := at(time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC))
			b.clock = func() moment { return now }
			r := reserve(t, b, testKey, time.Minute)
			path := filepath.Join(b.Dir(), testKey.file("budget"))
			if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
			r.Release()
			left, spent := until(t, b, testKey, time.Minute)
			if left != time.Minute || !strings.Contains(spent.Error(), "damaged") {
				t.Errorf("spent for %v more, %v; want 1m, and that it was damaged", left, spent)
			}
			now.Up += time.Minute
			reserve(t, b, testKey, time.Minute)
		})
	}
}

// TestCannotLook has everything in the way that is not a record. Each is an
// error, and none is a permission.
func TestCannotLook(t *testing.T) {
	put := func(make func(path string) error) func(*testing.T, *Budget) {
		return func(t *testing.T, b *Budget) {
			if err := make(filepath.Join(b.Dir(), testKey.file("budget"))); err != nil {
				t.Skip(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		break_ func(*testing.T, *Budget)
		want   string
	}{
		"directory": {put(func(p string) error { return os.Mkdir(p, 0o700) }), "not a regular file"},
		"pipe":      {put(func(p string) error { return syscall.Mkfifo(p, 0o600) }), "not a regular file"},
		"link out":  {put(func(p string) error { return os.Symlink("/etc/passwd", p) }), "escapes"},
		"foreign": {put(func(p string) error {
			if err := os.WriteFile(p, []byte("{}"), 0o666); err != nil {
				return err
			}
			return os.Chown(p, 12345, 12345)
		}), "belongs to user 12345"},
		"locked": {func(t *testing.T, b *Budget) {
			f, err := os.Open(filepath.Join(b.Dir(), lockName))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
				t.Fatal(err)
			}
		}, "another process holds it"},
		"gone": {func(t *testing.T, b *Budget) {
			if err := os.RemoveAll(b.Dir()); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			synctest.Test(t, func(t *testing.T) {
				b := open(t, dir)
				tt.break_(t, b)
				r, err := b.Reserve(testKey, time.Minute)
				if r != nil || err == nil || isSpent(err) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v, %v; want an error of one line with %q", r, err, tt.want)
				}
			})
		})
	}
}

// TestFullDisk fills a small file system.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("budget", dir, "tmpfs", 0, "size=16k,mode=700"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	b := open(t, dir)
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 1024))
	}
	f.Close()
	r, err := b.Reserve(testKey, time.Minute)
	if r != nil || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, %v; want no space left", r, err)
	}
	if b, err := Open(dir, t.TempDir()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("opened %v with a full disk: %v", b, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, temporary+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := unix.Mount("budget", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skip(err)
	}
	if r, err := b.Reserve(testKey, time.Minute); r != nil || !errors.Is(err, syscall.EROFS) {
		t.Errorf("got %v, %v; want a read-only file system", r, err)
	}
	next := t.TempDir()
	if b := open(t, filepath.Join(dir, "new"), next); b.Dir() != next {
		t.Errorf("opened %s, want the one beside the read-only file system", b.Dir())
	}
}

func TestWrongUse(t *testing.T) {
	b := open(t, t.TempDir())
	for _, k := range []Key{{}, {Kind: "../x"}, {Kind: "A"}} {
		_, reserved := b.Reserve(k, time.Minute)
		_, loaded := b.Load(k, new(int))
		if reserved == nil || loaded == nil || b.Save(k, 1) == nil {
			t.Errorf("took the key %+v", k)
		}
	}
	for _, hold := range []time.Duration{0, -1, MaxHold + 1} {
		if _, err := b.Reserve(testKey, hold); err == nil {
			t.Errorf("took a hold of %v", hold)
		}
	}
}

func TestSweep(t *testing.T) {
	b := open(t, t.TempDir())
	old := time.Now().Add(-MaxHold - time.Minute)
	for name, kept := range map[string]bool{"budget_x": false, "answers_x": false, temporary + "x": false, "notes": true} {
		path := filepath.Join(b.Dir(), name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, old, old)); err != nil {
			t.Fatal(err)
		}
		reserve(t, b, testKey, time.Minute).Release()
		if _, err := os.Stat(path); (err == nil) != kept {
			t.Errorf("%s, a day old: %v", name, err)
		}
	}
}

// FuzzRecord reads whatever is in a record's file.
func FuzzRecord(f *testing.F) {
	valid, err := json.Marshal(record{moment: at(time.Now()), ID: "x"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(valid)
	f.Add([]byte(`{"time":"9999-12-31T23:59:59Z","id":"x"}`))
	f.Add([]byte(`{"time":"0000-01-01T00:00:00Z","id":"x"}`))
	f.Add([]byte(`{"time":"2026-01-02T12:00:00Z","boot":"one","up":-9223372036854775808,"id":"x"}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		b := open(t, dir)
		if err := os.WriteFile(filepath.Join(dir, testKey.file("budget")), content, 0o600); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		_, err := b.Reserve(testKey, time.Minute)
		var spent *SpentError
		if err != nil && !errors.As(err, &spent) {
			t.Fatal(err)
		}
		if spent != nil && spent.Until.Sub(now) > time.Minute+time.Second {
			t.Errorf("locked out until %v", spent.Until)
		}
		until(t, b, testKey, time.Minute)
	})
}
