//go:build linux

package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Daemon names an IKE daemon that a gateway can run.
type Daemon int

// The IKE daemons, as Debian packages them.
const (
	StrongSwan Daemon = iota
	Libreswan
	OpenIKED // IKEv2 only
)

// daemonPatience is more than a daemon ever took to start or stop.
const daemonPatience = 20 * time.Second

// IKE is the IKE daemon of a gateway.
type IKE interface {
	// Stop ends the daemon as an administrator would; it deletes its
	// associations at the peer. Stopping twice is stopping once.
	Stop()
	// Log returns the path of the daemon's log.
	Log() string
	// HalfOpen returns the number of handshakes that someone began with the
	// daemon and did not finish.
	HalfOpen() int
	// Initiate sets the tunnel up, Terminate takes it down.
	Initiate()
	Terminate()
	// Attempt begins to set the tunnel up, and does not wait for the end.
	Attempt()
	// Rekey begins to renew the ESP associations of a tunnel that is up.
	Rekey()

	launch()    // starts the daemon, with nothing to do yet
	configure() // waits until it listens, and tells it its tunnel
}

// newIKE returns a gateway's daemon, not yet running.
func newIKE(g *Gateway, kind Daemon) IKE {
	switch kind {
	case Libreswan:
		return &libreswan{process: newProcess(g, "libreswan")}
	case OpenIKED:
		return &openIKED{process: newProcess(g, "openiked")}
	default:
		return newStrongSwan(g)
	}
}

// process is what the daemons have in common: a directory in the results for
// their files, and a process on their gateway.
type process struct {
	gateway *Gateway
	name    string
	dir     string
	cmd     *exec.Cmd // nil when stopped
}

func newProcess(g *Gateway, name string) process {
	p := process{gateway: g, name: name, dir: filepath.Join(guestResults, name+"-"+g.Name)}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		g.lab.t.Fatal("lab: ", err)
	}
	return p
}

// Log returns the path of the daemon's log.
func (p *process) Log() string { return filepath.Join(p.dir, "log") }

// run starts the daemon's program, whose output goes to a file.
func (p *process) run(command, output string, env ...string) {
	p.gateway.lab.t.Helper()
	file, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		p.gateway.lab.t.Fatal("lab: ", err)
	}
	defer file.Close()
	p.cmd = p.gateway.Command(command)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	if err := p.cmd.Start(); err != nil {
		p.gateway.lab.t.Fatalf("lab: start %s: %v", p.name, err)
	}
}

// await waits until the daemon has the socket that it is controlled by.
func (p *process) await(socket string) {
	p.gateway.lab.t.Helper()
	exists := func() bool {
		_, err := os.Stat(socket)
		return err == nil
	}
	if !eventually(daemonPatience, exists) {
		log, _ := os.ReadFile(p.Log())
		p.gateway.lab.t.Fatalf("lab: %s on %s did not come up:\n%s", p.name, p.gateway.Name, log)
	}
}

// Stop ends the daemon as an administrator would.
func (p *process) Stop() {
	p.gateway.lab.t.Helper()
	if p.cmd == nil {
		return
	}
	cmd := p.cmd
	p.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.gateway.lab.t.Errorf("lab: stop %s: %v", p.name, err)
	}
	stuck := time.AfterFunc(daemonPatience, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	if err := cmd.Wait(); err != nil {
		p.gateway.lab.t.Errorf("lab: %s on %s: %v", p.name, p.gateway.Name, err)
	}
}

// control runs a program that talks to the daemon through its socket, and so
// does not need the network of the node.
func (p *process) control(env []string, name string, args ...string) string {
	p.gateway.lab.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.gateway.lab.t.Fatalf("lab: %s: %s %s: %v: %s", p.gateway.Name, name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// write writes one of the daemon's files.
func (p *process) write(name, content string) (path string) {
	p.gateway.lab.t.Helper()
	path = filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		p.gateway.lab.t.Fatal("lab: ", err)
	}
	return path
}
