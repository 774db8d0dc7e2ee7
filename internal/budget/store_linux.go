package budget

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockName  = "lock"
	temporary = "new_" // begins the name of a file that is being written

	// Holders of the lock read and write one small file. One that was stopped
	// meanwhile must not stop the others.
	lockPatience = 2 * time.Second
	lockPause    = 5 * time.Millisecond
)

var (
	errTooLarge = errors.New("file too large")
	errNotOurs  = errors.New("not a directory to keep state in")
)

// store is a directory of small files, each replaced as a whole.
type store struct {
	root *os.Root
	uid  int // the directory's owner, who owns the files too
	gid  int
}

// openStore opens a directory that only its owner can write to, and that
// files can be created in.
func openStore(dir string) (store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return store{}, err
	}
	if err := checkLink(dir); err != nil {
		return store{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return store{}, err
	}
	s := store{root: root}
	if err := s.check(); err != nil {
		root.Close()
		return store{}, err
	}
	return s, nil
}

// checkLink refuses a symbolic link, unless the superuser made it: systemd
// does for the state directory of a service with a dynamic user.
func checkLink(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 && owner(info).Uid != 0 {
		return fmt.Errorf("%s: %w: is a symbolic link that user %d made", dir, errNotOurs, owner(info).Uid)
	}
	return nil
}

// check looks at the directory that is open, whatever its name meant before.
func (s *store) check() error {
	info, err := s.root.Stat(".")
	if err != nil {
		return err
	}
	s.uid, s.gid = int(owner(info).Uid), int(owner(info).Gid)
	switch euid := os.Geteuid(); {
	case s.uid != euid && euid != 0:
		return fmt.Errorf("%s: %w: belongs to user %d, not to %d, who runs this", s.name(), errNotOurs, s.uid, euid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s: %w: others can write to it: chmod 700 %s", s.name(), errNotOurs, s.name())
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	// A full disk takes the empty lock file, but no content.
	name := temporary + rand.Text()
	if err := s.create(name, []byte("{}")); err != nil {
		return err
	}
	return s.root.Remove(name)
}

func owner(info fs.FileInfo) *syscall.Stat_t {
	return info.Sys().(*syscall.Stat_t) // as package os documents for Linux
}

func (s *store) name() string { return s.root.Name() }
func (s *store) close() error { return s.root.Close() }

// lock takes the directory's lock, within lockPatience. The kernel drops it
// with the process.
func (s *store) lock() (unlock func(), err error) {
	f, err := s.open(lockName, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.createLock(); err == nil {
			f, err = s.open(lockName, os.O_RDWR)
		}
	}
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(lockPause) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		case time.Now().After(end):
			f.Close()
			return nil, fmt.Errorf("lock %s: another process holds it for more than %v", f.Name(), lockPatience)
		}
	}
}

// createLock creates the lock's file unless it is there. Others see it
// when it is theirs already.
func (s *store) createLock() error {
	scratch := temporary + rand.Text()
	if err := s.create(scratch, nil); err != nil {
		return err
	}
	err := s.root.Link(scratch, lockName)
	_ = s.root.Remove(scratch)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return s.located(lockName, err)
	}
	return nil
}

// open opens a file and checks that nobody but the directory's owner, or the
// superuser, put it there.
func (s *store) open(name string, flag int) (*os.File, error) {
	// Should it be a pipe, opening must not wait for its other end.
	f, err := s.root.OpenFile(name, flag|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, s.located(name, err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s/%s: is not a regular file: remove it", s.name(), name)
	case int(owner(info).Uid) != s.uid:
		err = fmt.Errorf("%s/%s: belongs to user %d, not to the directory's owner %d: remove it", s.name(), name, owner(info).Uid, s.uid)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// read returns a file of at most limit bytes.
func (s *store) read(name string, limit int64) ([]byte, error) {
	f, err := s.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, s.located(name, err)
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("%s/%s: %w: more than %d bytes", s.name(), name, errTooLarge, limit)
	}
	return data, nil
}

// replace gives a file new content, all of it or, with an error, none.
func (s *store) replace(name string, data []byte) error {
	scratch := temporary + rand.Text()
	if err := s.create(scratch, data); err != nil {
		return err
	}
	if err := s.root.Rename(scratch, name); err != nil {
		_ = s.root.Remove(scratch)
		return s.located(name, err)
	}
	return nil
}

// create writes a file that does not exist. The superuser gives it to the
// directory's owner, who could not use it otherwise.
func (s *store) create(name string, data []byte) error {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return s.located(name, err)
	}
	_, err = f.Write(data)
	if err == nil && s.uid != os.Geteuid() {
		err = f.Chown(s.uid, s.gid)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = s.root.Remove(name)
		return s.located(name, err)
	}
	return nil
}

func (s *store) remove(name string) error {
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.located(name, err)
	}
	return nil
}

// located puts the directory into an error that names the file only.
func (s *store) located(name string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		err = link.Err
	}
	return fmt.Errorf("%s/%s: %w", s.name(), name, err)
}

// sweep deletes the files last written before a time, but for the records that
// still decide something: old records and answers, and what a process that died
// was writing. It needs the lock.
func (s *store) sweep(before time.Time, decides func(record string) bool) error {
	dir, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "budget_") && !strings.HasPrefix(name, "answers_") && !strings.HasPrefix(name, temporary) {
			continue // the lock, or not ours
		}
		info, err := s.root.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || !info.ModTime().Before(before) {
			continue
		}
		if strings.HasPrefix(name, "budget_") && decides(name) {
			continue
		}
		_ = s.root.Remove(name)
	}
	return nil
}
