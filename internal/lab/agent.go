//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vpnprobe/evidence"
)

const (
	// PeerName is the name of gateway b in the agent's configuration.
	PeerName = "cloud"

	// TwinName is the name of the far site's second gateway.
	TwinName = "cloud-2"

	// agentPatience is how long the agent may take to stop.
	agentPatience = 10 * time.Second

	// probePatience is well beyond any duration that a case asks for.
	probePatience = 2 * time.Minute
)

// agentConfig declares the tunnel as the administrator of gateway a would.
const agentConfig = `
references: [%[1]q]
state_directory: %[2]s
%[3]s
peers:
  - name: %[4]s
    gateway: %[5]q
    %[12]s
    ike: {%[6]s}
    esp: {proposals: [%[7]s], mode: %[8]s}
    local_subnets: [%[9]s]
    remote_subnets: [%[10]s]
    %[11]s
%[13]s
`

// twinConfig declares the tunnel to the far site's second gateway.
const twinConfig = `
  - name: ` + TwinName + `
    gateway: ` + twinAddress + `
    local_subnets: [%s]
    remote_subnets: [%s]
`

// agentInner declares a host behind gateway b, and ports that it serves.
const agentInner = "inner: [{address: " + LanBHost + ", source: %s, tcp_ports: [%s]}]"

// stateDirectory is where the agent keeps what survives it. It does not
// survive the lab.
const stateDirectory = "/var/lib/vpnprobe"

// Declaration is what the agent's administrator declares beside what gateway
// a is told.
type Declaration struct {
	Tunnel       func(*Tunnel) // changes what is declared of the tunnel
	Settings     string        // top-level lines of the agent's configuration
	Capture      string        // mode of the capture, if not auto
	AnyInterface bool          // the underlay's interface is not declared
	Ports        []string      // TCP ports of the host behind gateway b

	// Behind runs the agent on the host behind gateway a, which has nothing of
	// the tunnel but the way there: give it one to the underlay with
	// [Gateway.Masquerade].
	Behind bool
}

// lines returns the top-level lines of the agent's configuration.
func (d Declaration) lines() string {
	if d.Capture == "" {
		return d.Settings
	}
	return d.Settings + "\ncapture: {mode: " + d.Capture + "}"
}

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

	Evidence struct {
		Capture   evidence.Capture                 `json:"capture"`
		MTUs      []evidence.PathMTU               `json:"path_mtu"`
		TunnelMTU evidence.Opt[evidence.TunnelMTU] `json:"tunnel_mtu"`
		TCPSizes  []evidence.TCPSize               `json:"tcp_sizes"`
	} `json:"evidence"`
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
	l.runs++
	r, err := l.probe(l.runs, l.writeAgentConfig(filepath.Join(guestResults, fmt.Sprintf("probe-%d.yaml", l.runs)), ""), flags)
	if err != nil {
		l.t.Fatal("lab: ", err)
	}
	return r
}

// KeepProbing runs agent probe again and again, until the function returned
// is called. That returns all reports, and the test fails if a run had none.
func (l *Lab) KeepProbing(flags ...string) (stop func() []*Report) {
	l.t.Helper()
	config := l.writeAgentConfig(filepath.Join(guestResults, "agent.yaml"), "")
	ctx, cancel := context.WithCancel(context.Background())
	l.t.Cleanup(cancel)
	var reports []*Report
	ended := make(chan error, 1)
	go func() {
		for n := 1; ctx.Err() == nil; n++ {
			r, err := l.probe(n, config, flags)
			if err != nil {
				ended <- err
				return
			}
			reports = append(reports, r)
		}
		ended <- nil
	}()
	return func() []*Report {
		l.t.Helper()
		cancel()
		if err := <-ended; err != nil {
			l.t.Fatal("lab: ", err)
		}
		return reports
	}
}

// probe runs agent probe once, the nth time.
func (l *Lab) probe(n int, config string, flags []string) (*Report, error) {
	return l.report(l.probeCommand(config, flags), n)
}

func (l *Lab) probeCommand(config string, flags []string) *exec.Cmd {
	command := fmt.Sprintf("%s probe --config %s --peer %s --format json", agentPath(), config, PeerName)
	cmd := l.A.Command(command)
	if l.Declared.Behind {
		cmd = l.LanA.Command("sh -c")
		// Without the gateways' control sockets: the files are the nodes' in common.
		cmd.Args = append(cmd.Args, `mount -t tmpfs none /run && exec "$0" "$@"`)
		cmd.Args = append(cmd.Args, strings.Fields(command)...)
	}
	cmd.Args = append(cmd.Args, flags...)
	return cmd
}

// report runs the agent for a report, the nth one.
func (l *Lab) report(cmd *exec.Cmd, n int) (*Report, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return l.await(cmd, n, &stdout, &stderr)
}

// await waits for the report of an agent that was started for the nth one.
func (l *Lab) await(cmd *exec.Cmd, n int, stdout, stderr *bytes.Buffer) (*Report, error) {
	// It ends with what all of its goroutines wait for.
	stuck := time.AfterFunc(probePatience, func() { cmd.Process.Signal(syscall.SIGQUIT) })
	defer stuck.Stop()
	err := cmd.Wait()
	name := filepath.Join(guestResults, fmt.Sprintf("probe-%d", n))
	saved := errors.Join(os.WriteFile(name+".json", stdout.Bytes(), 0o644), os.WriteFile(name+".stderr", stderr.Bytes(), 0o644))

	r := &Report{Stderr: stderr.String(), Raw: stdout.Bytes()}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		r.ExitCode = exit.ExitCode()
	} else if err != nil {
		return nil, fmt.Errorf("run the agent: %w\n%s", err, r.Stderr)
	}
	if err := json.Unmarshal(r.Raw, r); err != nil {
		return nil, fmt.Errorf("the agent (exit status %d) printed no report: %w\n%s%s", r.ExitCode, err, r.Raw, r.Stderr)
	}
	return r, saved
}

// Agent is a running agent run.
type Agent struct {
	lab *Lab
	cmd *exec.Cmd
}

// AgentListen is where the lab's first agent run serves HTTP, on gateway a;
// the others are on the ports above.
const (
	AgentListen = "127.0.0.1:9793"
	agentPort   = 9793
)

// StartAgent starts agent run on gateway a. settings are top-level lines of
// its configuration. The agent is stopped when the test ends, and must then
// exit with status 0.
func (l *Lab) StartAgent(settings string) *Agent {
	l.t.Helper()
	name := fmt.Sprintf("agent-%d", l.agents)
	listen := fmt.Sprintf("listen: 127.0.0.1:%d\n", agentPort+l.agents)
	l.agents++
	config := l.writeAgentConfig(filepath.Join(guestResults, name+".yaml"), listen+settings)
	a := &Agent{lab: l, cmd: l.A.Command(agentPath() + " run --config " + config)}
	l.start(a.cmd, name+".log")
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

// writeAgentConfig declares to the agent what gateway a is told of the tunnel.
func (l *Lab) writeAgentConfig(path, settings string) string {
	l.t.Helper()
	t := l.A.Tunnel
	if l.Declared.Tunnel != nil {
		l.Declared.Tunnel(&t)
	}
	ike := fmt.Sprintf("version: %d, proposals: [%s]", t.Version, t.IKE)
	if t.Version == 1 {
		ike += ", mode: " + pick(t.Aggressive, "aggressive", "main")
	}
	if l.config.Identified {
		key := filepath.Join(guestResults, "psk")
		if err := os.WriteFile(key, []byte(t.Key+"\n"), 0o600); err != nil {
			l.t.Fatal("lab: ", err)
		}
		ike += fmt.Sprintf(", local_id: %q, remote_id: %q, psk_file: %s", t.LocalID, t.RemoteID, key)
	}
	inner := "" // outside the tunnel of a case that does not connect the networks
	if remote, err := netip.ParsePrefix(t.RemoteSubnet); err == nil && remote.Contains(netip.MustParseAddr(LanBHost)) {
		inner = fmt.Sprintf(agentInner, pick(l.Declared.Behind, LanAHost, LanAGateway), strings.Join(l.Declared.Ports, ", "))
	}
	device, twin := "interface: wan", ""
	if l.Declared.AnyInterface || l.Declared.Behind {
		device = ""
	}
	if l.Twin != nil {
		twin = fmt.Sprintf(twinConfig, t.LocalSubnet, t.RemoteSubnet)
	}
	if err := os.MkdirAll(stateDirectory, 0o700); err != nil {
		l.t.Fatal("lab: ", err)
	}
	l.save(path, fmt.Appendf(nil, agentConfig, l.plan.ref, stateDirectory, settings+"\n"+l.Declared.lines(), PeerName, l.plan.b, ike,
		t.ESP, pick(t.Transport, "transport", "tunnel"), t.LocalSubnet, t.RemoteSubnet, inner, device, twin))
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
