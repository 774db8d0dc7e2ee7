//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// PeerName is the name of gateway b in the agent's configuration.
	PeerName = "cloud"

	// agentPatience is how long the agent may take to stop.
	agentPatience = 10 * time.Second

	// probePatience is well beyond any duration that a case asks for.
	probePatience = 2 * time.Minute
)

// agentConfig declares the tunnel as its administrator would.
const agentConfig = `
references: [%q]
%s
peers:
  - name: %s
    gateway: %q
    interface: wan
    ike: {version: 2, proposals: [aes256-sha256-modp2048]}
    esp: {proposals: [aes256-sha256], mode: tunnel}
    local_subnets: [%s]
    remote_subnets: [%s]
    inner:
      - {address: %s, source: %s}
`

// Report is what agent probe said: its exit status, and the part of its JSON
// that tests look at.
type Report struct {
	ExitCode int    `json:"-"`
	Stderr   string `json:"-"`
	Raw      []byte `json:"-"` // the whole JSON, for what is not below

	Diagnosis string    `json:"diagnosis"`
	Severity  string    `json:"severity"`
	Summary   string    `json:"summary"`
	Findings  []Finding `json:"findings"`
}

// Finding is one finding of a [Report].
type Finding struct {
	Diagnosis  string   `json:"diagnosis"`
	Severity   string   `json:"severity"`
	Confidence string   `json:"confidence"`
	Role       string   `json:"role"`
	Evidence   []string `json:"evidence"`
	Remedy     string   `json:"remedy"`
}

// Finding returns the finding with a diagnosis, or nil if there is none.
func (r *Report) Finding(diagnosis string) *Finding {
	for i := range r.Findings {
		if r.Findings[i].Diagnosis == diagnosis {
			return &r.Findings[i]
		}
	}
	return nil
}

// Probe runs agent probe for the peer on gateway a. The flags are added to
// the ones every run gets.
func (l *Lab) Probe(flags ...string) *Report {
	l.t.Helper()
	config := l.writeAgentConfig("")
	l.runs++
	name := func(suffix string) string {
		return filepath.Join(guestResults, fmt.Sprintf("probe-%d%s", l.runs, suffix))
	}
	cmd := l.A.Command(fmt.Sprintf("%s probe --config %s --peer %s --format json", agentPath(), config, PeerName))
	cmd.Args = append(cmd.Args, flags...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := l.runFor(cmd, probePatience)
	l.save(name(".json"), stdout.Bytes())
	l.save(name(".stderr"), stderr.Bytes())

	r := &Report{Stderr: stderr.String(), Raw: stdout.Bytes()}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		r.ExitCode = exit.ExitCode()
	} else if err != nil {
		l.t.Fatalf("lab: run the agent: %v\n%s", err, r.Stderr)
	}
	if err := json.Unmarshal(r.Raw, r); err != nil {
		l.t.Fatalf("lab: the agent (exit status %d) printed no report: %v\n%s%s", r.ExitCode, err, r.Raw, r.Stderr)
	}
	return r
}

// Agent is a running agent run.
type Agent struct {
	lab *Lab
	cmd *exec.Cmd
}

// AgentListen is where the lab's agent run serves HTTP, on gateway a.
const AgentListen = "127.0.0.1:9793"

// StartAgent starts agent run on gateway a. settings are top-level lines of
// its configuration. The agent is stopped when the test ends, and must then
// exit with status 0.
func (l *Lab) StartAgent(settings string) *Agent {
	l.t.Helper()
	config := l.writeAgentConfig("listen: " + AgentListen + "\n" + settings)
	a := &Agent{lab: l, cmd: l.A.Command(agentPath() + " run --config " + config)}
	l.start(a.cmd, "agent-run.log")
	l.t.Cleanup(a.stop)
	return a
}

func (a *Agent) stop() {
	a.lab.t.Helper()
	if err := terminate(a.cmd); err != nil {
		a.lab.t.Errorf("lab: agent run, asked to stop: %v", err)
	}
}

// start starts a daemon whose output goes to a file in the results directory.
func (l *Lab) start(cmd *exec.Cmd, log string) {
	l.t.Helper()
	output, err := os.Create(filepath.Join(guestResults, log))
	if err != nil {
		l.t.Fatal("lab: ", err)
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		l.t.Fatalf("lab: start %v: %v", cmd, err)
	}
}

// terminate ends a daemon, and returns how it took it.
func terminate(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	stuck := time.AfterFunc(agentPatience, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	return cmd.Wait()
}

// runFor runs a command that is killed if it takes too long.
func (l *Lab) runFor(cmd *exec.Cmd, patience time.Duration) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	stuck := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	return cmd.Wait()
}

func (l *Lab) writeAgentConfig(settings string) (path string) {
	l.t.Helper()
	path = filepath.Join(guestResults, "agent.yaml")
	l.save(path, fmt.Appendf(nil, agentConfig, l.plan.ref, settings, PeerName, l.plan.b,
		LanASubnet, LanBSubnet, LanBHost, LanAGateway))
	return path
}

func (l *Lab) save(path string, content []byte) {
	l.t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		l.t.Fatal("lab: ", err)
	}
}

// agentPath returns where the guest sees the agent.
func agentPath() string { return filepath.Join(hostRoot, os.Getenv(envAgent)) }
