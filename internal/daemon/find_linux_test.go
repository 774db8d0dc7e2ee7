package daemon

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unixTable has a line of each kind: see proc(5).
const unixTable = `Num       RefCount Protocol Flags    Type St Inode Path
00000000b6745235: 00000002 00000000 00010000 0001 01   223 /run/charon.vici
00000000b6745236: 00000003 00000000 00000000 0001 03   224 /run/charon.vici
00000000b6745237: 00000002 00000000 00010000 0001 01   225 /run/charon.ctl
00000000b6745238: 00000002 00000000 00010000 0001 01   226 @vici
00000000b6745239: 00000002 00000000 00010000 0001 01   227 /run/with space/vici-a
00000000b674523a: 00000002 00000000 00000000 0002 01   228
00000000b674523b: 00000002 00000000 00010000 0001 01   229 /run/pluto/pluto.ctl
not a line
00000000b674523c: 00000002 00000000 zzzz 0001 01   230 /run/bad.vici
`

func TestListening(t *testing.T) {
	got, err := listening(strings.NewReader(unixTable))
	want := []string{"/run/charon.vici", "/run/charon.ctl", "/run/with space/vici-a", "/run/pluto/pluto.ctl"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// fakeProc makes a proc file system: the table of sockets, and processes by
// id with the name of the program and their network namespace.
func fakeProc(t *testing.T, table string, processes map[string][2]string) string {
	t.Helper()
	proc := t.TempDir()
	put := func(name, text string) {
		path := filepath.Join(proc, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, to string) {
		path := filepath.Join(proc, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink(to, path)); err != nil {
			t.Fatal(err)
		}
	}
	put("thread-self/net/unix", table)
	link("thread-self/ns/net", "net:[1]")
	for id, p := range processes {
		put(id+"/comm", p[0]+"\n")
		if p[1] != "" {
			link(id+"/ns/net", p[1])
		}
	}
	return proc
}

func TestFind(t *testing.T) {
	whackDir := t.TempDir()
	if err := os.WriteFile(filepath.Join(whackDir, "whack"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	line := func(path string) string { return "0: 2 0 00010000 0001 01 1 " + path + "\n" }
	for _, tt := range []struct {
		name      string
		table     string
		processes map[string][2]string
		exe       map[string]string
		want      []string
		fault     string
	}{
		{"none", "", nil, nil, nil, ""},
		{"strongSwan", line("/run/charon.vici"), map[string][2]string{"7": {"charon-systemd", "net:[1]"}}, nil, []string{"strongswan"}, ""},
		{"seen by its socket only", line("/run/vici-a"), nil, nil, []string{"strongswan"}, ""},
		{"another namespace's", "", map[string][2]string{"7": {"charon", "net:[2]"}}, nil, nil, ""},
		{"without vici", line("/run/charon.ctl"), map[string][2]string{"7": {"charon", "net:[1]"}}, nil, nil,
			"find the IKE daemon: strongSwan runs here as process 7, without a vici socket: load its vici plugin"},
		{"gone", "", map[string][2]string{"7": {"charon", ""}}, nil, nil, ""},
		{"others", line("/run/other.sock"), map[string][2]string{"7": {"sshd", "net:[1]"}}, nil, nil, ""},
		{"libreswan", line("/run/pluto-a/pluto.ctl"), map[string][2]string{"8": {"pluto", "net:[1]"}}, map[string]string{"8": whackDir + "/pluto"}, []string{"libreswan"}, ""},
		{"both", line("/run/charon.vici") + line("/run/pluto/pluto.ctl"), map[string][2]string{"8": {"pluto", "net:[1]"}}, map[string]string{"8": whackDir + "/pluto"}, []string{"strongswan", "libreswan"}, ""},
		{"libreswan without a socket", "", map[string][2]string{"8": {"pluto", "net:[1]"}}, nil, nil, "find the IKE daemon: libreswan runs here as process 8, without a control socket"},
		{"a daemon's socket that is not to be trusted", line("/tmp/vici"), map[string][2]string{"7": {"charon", "net:[1]"}}, nil, nil, "anyone's"},
		{"beside one to be trusted", line("/tmp/vici") + line("/run/charon.vici"), nil, nil, []string{"strongswan"}, "anyone's"},
		{"anyone's socket", line("/tmp/vici"), nil, nil, nil, "anyone's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := finder{proc: fakeProc(t, tt.table, tt.processes), trusted: func(socket string) error {
				if socket == "/tmp/vici" {
					return errors.New("anyone's")
				}
				return nil
			}}
			for id, exe := range tt.exe {
				if os.Geteuid() != 0 {
					t.Skip("not root: a program of another user is not run")
				}
				if err := os.Symlink(exe, filepath.Join(f.proc, id, "exe")); err != nil {
					t.Fatal(err)
				}
			}
			daemons, err := f.find(t.Context())
			var got []string
			for _, d := range daemons {
				got = append(got, d.Name())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if (err == nil) != (tt.fault == "") || err != nil && err.Error() != tt.fault {
				t.Errorf("got error %v, want %q", err, tt.fault)
			}
		})
	}
}

// TestFindHere looks at this host, whatever runs on it.
func TestFindHere(t *testing.T) {
	daemons, err := Find(t.Context())
	t.Log(len(daemons), err)
}

func TestTrusted(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := trusted(filepath.Join(dir, "vici")); err != nil {
		t.Errorf("a directory of our own: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := trusted(filepath.Join(dir, "vici")); err == nil || !strings.Contains(err.Error(), "others than root can make sockets") {
		t.Errorf("a directory of everyone's: %v", err)
	}
	// In a directory like /tmp, a socket of our own is ours all the same.
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if err := trusted(filepath.Join(dir, "vici")); err == nil {
		t.Error("trusted a socket that is not there in a directory of everyone's")
	}
	l, err := net.Listen("unix", filepath.Join(dir, "vici"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := trusted(filepath.Join(dir, "vici")); err != nil {
		t.Errorf("a socket of our own among everyone's: %v", err)
	}
	if err := trusted(filepath.Join(dir, "none", "vici")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestWhackProgram(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: a program of another user is not run")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "whack")
	processes := []process{{who: "libreswan", program: filepath.Join(dir, "pluto")}}
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := (finder{}).whack(processes); err != nil || got != path {
		t.Errorf("got %s, %v", got, err)
	}
	for name, spoil := range map[string]func() error{
		"writable by all": func() error { return os.Chmod(path, 0o777) },
		"another user's":  func() error { return errors.Join(os.Chmod(path, 0o755), os.Chown(path, 12345, 12345)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if got, _ := (finder{}).whack(processes); got == path {
			t.Errorf("ran a program that is %s", name)
		}
	}
}
