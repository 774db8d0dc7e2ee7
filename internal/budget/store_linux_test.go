package budget

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	base := t.TempDir()
	mkdir := func(name string, mode os.FileMode) string {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	good, loose, file := mkdir("good", 0o755), mkdir("loose", 0o777), filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		dirs []string
		want string // the directory, or the error's words
	}{
		{"created", []string{filepath.Join(base, "new")}, filepath.Join(base, "new")},
		{"created with its parents", []string{filepath.Join(base, "a/b/c")}, filepath.Join(base, "a/b/c")},
		{"existing", []string{good}, good},
		{"next", []string{loose, file, filepath.Join(file, "child"), good}, good},
		{"loose", []string{loose}, "others can write to it: chmod 700"},
		{"none of two", []string{loose, file}, "not a directory"},
		{"nothing", nil, "none is configured"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Open(tt.dirs...)
			if err == nil {
				defer b.Close()
				if b.Dir() != tt.want {
					t.Errorf("opened %s, want %s", b.Dir(), tt.want)
				}
				return
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v; want one line with %q", err, tt.want)
			}
		})
	}
	info, err := os.Stat(filepath.Join(base, "new"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("created %v, %v; want mode 0700", info, err)
	}
}

// What stands in the way for now only is no reason for another directory,
// where nothing is spent yet.
func TestOpenLater(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, lock string) error
		want  string
	}{
		"locked": {func(t *testing.T, lock string) error {
			f, err := os.Create(lock)
			if err != nil {
				return err
			}
			t.Cleanup(func() { f.Close() })
			return unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}, "another process holds it"},
		"lock that is none": {func(_ *testing.T, lock string) error { return os.Mkdir(lock, 0o700) }, lockName},
	} {
		t.Run(name, func(t *testing.T) {
			first, next := t.TempDir(), t.TempDir()
			if err := os.Chmod(first, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(t, filepath.Join(first, lockName)); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				b, err := Open(first, next)
				if err == nil {
					b.Close()
					t.Fatalf("opened %s", b.Dir())
				}
				if !strings.Contains(err.Error(), first) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v; want %q", err, tt.want)
				}
			})
		})
	}
}

// TestOwners: root and the service's user share the directory of the latter.
func TestOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot make files of another user")
	}
	base := t.TempDir()
	dir, link, foreignLink := filepath.Join(base, "private"), filepath.Join(base, "link"), filepath.Join(base, "foreign")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 12345, 12346), os.Symlink("private", link), os.Symlink("private", foreignLink), os.Lchown(foreignLink, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	b := open(t, link) // as systemd makes it
	reserve(t, b, testKey, time.Minute)
	if err := b.Save(testKey, "x"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("got %v, %v; want lock, budget and answers", entries, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if o := owner(info); o.Uid != 12345 || o.Gid != 12346 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: owner %d:%d, mode %v", e.Name(), o.Uid, o.Gid, info.Mode())
		}
	}
	if _, err := Open(foreignLink); err == nil || !strings.Contains(err.Error(), "symbolic link that user 12345 made") {
		t.Errorf("followed another user's link: %v", err)
	}
}
