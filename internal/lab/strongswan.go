//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

const (
	// connName and childName are what both gateways call their tunnel.
	connName  = "cloud"
	childName = "lan"

	preSharedKey = "a pre-shared key for tests only"

	// daemonPatience is more than the daemon ever took to start or stop.
	daemonPatience = 20 * time.Second
)

// StrongSwan is a running charon with swanctl as its remote control. Several
// run side by side: each has a configuration, a control socket and a log of
// its own, and the network of its node.
type StrongSwan struct {
	node   *Node
	dir    string // in the results directory
	socket string
	daemon *exec.Cmd // nil when stopped
}

// strongswanConf lists the plugins because Debian's own list comes with
// files in /etc, which belong to the host.
const strongswanConf = `
charon-systemd {
	load = random nonce openssl aes sha1 sha2 hmac kdf gcm pem pkcs1 x509 constraints pubkey kernel-netlink socket-default vici updown
	plugins {
		vici {
			socket = unix://%[1]s
		}
	}
	filelog {
		charon {
			path = %[2]s
			time_format = %%H:%%M:%%S
			flush_line = yes
			default = 1
		}
	}
	journal {
		default = -1
	}
}
swanctl {
	load = random openssl
}
`

// startStrongSwan starts the gateway's IKE daemon, with nothing to do yet.
func startStrongSwan(g *Gateway) *StrongSwan {
	g.lab.t.Helper()
	s := &StrongSwan{
		node:   g.Node,
		dir:    filepath.Join(guestResults, "strongswan-"+g.Name),
		socket: "/run/vici-" + g.Name, // a socket cannot live in the results directory
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		g.lab.t.Fatal("lab: ", err)
	}
	s.write("strongswan.conf", fmt.Sprintf(strongswanConf, s.socket, s.Log()))
	s.Start()
	g.lab.t.Cleanup(s.Stop)
	return s
}

// Log returns the path of the daemon's log.
func (s *StrongSwan) Log() string { return filepath.Join(s.dir, "charon.log") }

// Start starts the daemon. After a stop it has forgotten its connections.
func (s *StrongSwan) Start() {
	s.node.lab.t.Helper()
	s.daemon = s.node.Command("charon-systemd")
	s.daemon.Env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(s.dir, "strongswan.conf"))
	output, err := os.Create(filepath.Join(s.dir, "output"))
	if err != nil {
		s.node.lab.t.Fatal("lab: ", err)
	}
	defer output.Close()
	s.daemon.Stdout, s.daemon.Stderr = output, output
	if err := s.daemon.Start(); err != nil {
		s.node.lab.t.Fatal("lab: start strongSwan: ", err)
	}
}

// Stop ends the daemon as an administrator would; it deletes its associations
// at the peer. Stopping twice is stopping once.
func (s *StrongSwan) Stop() {
	s.node.lab.t.Helper()
	if s.daemon == nil {
		return
	}
	daemon := s.daemon
	s.daemon = nil
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		s.node.lab.t.Error("lab: stop strongSwan: ", err)
	}
	stuck := time.AfterFunc(daemonPatience, func() { daemon.Process.Kill() })
	defer stuck.Stop()
	if err := daemon.Wait(); err != nil {
		s.node.lab.t.Errorf("lab: strongSwan on %s: %v", s.node.Name, err)
	}
}

var halfOpen = regexp.MustCompile(`(\d+) half-open`)

// HalfOpen returns the number of handshakes that someone began with the
// daemon and did not finish.
func (s *StrongSwan) HalfOpen() int {
	s.node.lab.t.Helper()
	stats, err := s.control("--stats")
	match := halfOpen.FindStringSubmatch(stats)
	if err != nil || match == nil {
		s.node.lab.t.Fatalf("lab: strongSwan on %s: no count of half-open handshakes: %v\n%s", s.node.Name, err, stats)
	}
	n, _ := strconv.Atoi(match[1])
	return n
}

// Associations returns swanctl's listing of the daemon's associations.
func (s *StrongSwan) Associations() string {
	s.node.lab.t.Helper()
	list, err := s.control("--list-sas")
	if err != nil {
		s.node.lab.t.Fatal("lab: ", err)
	}
	return list
}

// load gives the daemon, once it listens, its connection.
func (s *StrongSwan) load(conf string) {
	s.node.lab.t.Helper()
	listening := func() bool {
		_, err := os.Stat(s.socket)
		return err == nil
	}
	if !eventually(daemonPatience, listening) {
		log, _ := os.ReadFile(s.Log())
		s.node.lab.t.Fatalf("lab: strongSwan on %s did not come up:\n%s", s.node.Name, log)
	}
	path := s.write("swanctl.conf", conf)
	if _, err := s.control("--load-all", "--file", path); err != nil {
		s.node.lab.t.Fatal("lab: ", err)
	}
}

// initiate sets the tunnel up.
func (s *StrongSwan) initiate() {
	s.node.lab.t.Helper()
	if _, err := s.control("--initiate", "--child", childName, "--timeout", "20"); err != nil {
		s.node.lab.t.Fatal("lab: ", err)
	}
}

// control runs one swanctl command. It talks through the socket, so it does
// not need the network of the node.
func (s *StrongSwan) control(args ...string) (string, error) {
	cmd := exec.Command("swanctl", append(args, "--uri", "unix://"+s.socket)...)
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(s.dir, "strongswan.conf"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: swanctl %v: %w: %s", s.node.Name, args, err, out)
	}
	return string(out), err
}

func (s *StrongSwan) write(name, content string) (path string) {
	s.node.lab.t.Helper()
	path = filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.node.lab.t.Fatal("lab: ", err)
	}
	return path
}

// connection returns gateway g's swanctl.conf. Identities are names, so that
// they hold behind NAT.
func (l *Lab) connection(g *Gateway) string {
	local, remote := party{g.Name, LanASubnet}, party{l.B.Name, LanBSubnet}
	// The agent's side waits for traffic, the other for a's initiative.
	peer, action := l.plan.b, "trap"
	if g == l.B {
		local, remote = party{g.Name, LanBSubnet}, party{l.A.Name, LanASubnet}
		peer, action = l.plan.a, "none"
	}
	return fmt.Sprintf(`
connections {
	%[1]s {
		version = 2
		local_addrs = %[3]s
		remote_addrs = %[4]s
		proposals = aes256-sha256-modp2048
		local {
			auth = psk
			id = %[5]s.lab.example
		}
		remote {
			auth = psk
			id = %[6]s.lab.example
		}
		children {
			%[2]s {
				local_ts = %[7]s
				remote_ts = %[8]s
				esp_proposals = aes256-sha256
				start_action = %[9]s
			}
		}
	}
}
secrets {
	ike-%[1]s {
		secret = "%[10]s"
	}
}
`, connName, childName, g.Address, peer, local.name, remote.name, local.subnet, remote.subnet, action, preSharedKey)
}

// party is one end of the tunnel as the other end's configuration names it.
type party struct{ name, subnet string }
