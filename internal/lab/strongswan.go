//go:build linux

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/strongswan/govici/vici"
)

// strongSwan is a charon with swanctl as its remote control. Several run side
// by side: each has a configuration, a control socket and a log of its own,
// and the network of its node.
type strongSwan struct {
	process
	socket string
}

func newStrongSwan(g *Gateway) *strongSwan {
	s := &strongSwan{process: newProcess(g, "strongswan"), socket: "/run/vici-" + g.Name}
	if g == g.lab.A {
		s.socket = "/run/charon.vici" // its usual place, where the agent looks
	}
	return s
}

// strongswanConf lists the plugins because Debian's own list comes with
// files in /etc, which belong to the host.
const strongswanConf = `
charon-systemd {
	load = random nonce openssl aes sha1 sha2 hmac kdf gcm pem pkcs1 x509 constraints pubkey kernel-netlink socket-default vici updown
	%[3]s
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

// env tells strongSwan's programs where their configuration is.
func (s *strongSwan) env() string {
	return "STRONGSWAN_CONF=" + filepath.Join(s.dir, "strongswan.conf")
}

func (s *strongSwan) launch() {
	s.gateway.lab.t.Helper()
	os.Remove(s.socket) // of one that was stopped; it would pass for this one's
	s.write("strongswan.conf", fmt.Sprintf(strongswanConf, s.socket, s.Log(), s.gateway.Tunnel.Settings))
	s.run("charon-systemd", filepath.Join(s.dir, "output"), s.env())
}

func (s *strongSwan) configure() {
	s.gateway.lab.t.Helper()
	s.await(s.socket)
	s.swanctl("--load-all", "--file", s.write("swanctl.conf", s.configuration()))
}

var halfOpen = regexp.MustCompile(`(\d+) half-open`)

func (s *strongSwan) HalfOpen() int {
	s.gateway.lab.t.Helper()
	stats := s.swanctl("--stats")
	match := halfOpen.FindStringSubmatch(stats)
	if match == nil {
		s.gateway.lab.t.Fatalf("lab: strongSwan on %s: no count of half-open handshakes:\n%s", s.gateway.Name, stats)
	}
	n, _ := strconv.Atoi(match[1])
	return n
}

func (s *strongSwan) Initiate() {
	s.gateway.lab.t.Helper()
	s.swanctl("--initiate", "--child", childName, "--timeout", "20")
	if s.gateway.Second != nil {
		s.swanctl("--initiate", "--child", childName+secondSuffix, "--timeout", "20")
	}
}

func (s *strongSwan) Rekey() {
	s.gateway.lab.t.Helper()
	s.command("rekey", "child", childName)
}

func (s *strongSwan) Attempt() {
	s.gateway.lab.t.Helper()
	s.command("initiate", "child", childName, "timeout", "-1")
}

// command gives a command with its arguments, names and values, without
// swanctl, which takes long to start.
func (s *strongSwan) command(name string, arguments ...string) {
	s.gateway.lab.t.Helper()
	if err := s.call(name, arguments); err != nil {
		s.gateway.lab.t.Fatalf("lab: %s: %s: %v", s.gateway.Name, name, err)
	}
}

func (s *strongSwan) call(name string, arguments []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), daemonPatience)
	defer cancel()
	session, err := vici.NewSession(vici.WithAddr("unix", s.socket))
	if err != nil {
		return err
	}
	defer session.Close()
	request := vici.NewMessage()
	for i := 0; i < len(arguments); i += 2 {
		if err := request.Set(arguments[i], arguments[i+1]); err != nil {
			return err
		}
	}
	answer, err := session.Call(ctx, name, request)
	if err != nil {
		return err
	}
	return answer.Err()
}

func (s *strongSwan) Terminate() {
	s.gateway.lab.t.Helper()
	s.swanctl("--terminate", "--ike", connName, "--timeout", "20")
}

// swanctl runs one command of the remote control.
func (s *strongSwan) swanctl(args ...string) string {
	s.gateway.lab.t.Helper()
	return s.control([]string{s.env()}, "swanctl", append(args, "--uri", "unix://"+s.socket)...)
}

// configuration returns the gateway's swanctl.conf.
func (s *strongSwan) configuration() string {
	if s.gateway.Second == nil {
		return s.connection(s.gateway.Tunnel, "")
	}
	return s.connection(s.gateway.Tunnel, "") + s.connection(*s.gateway.Second, secondSuffix)
}

// secondSuffix ends the names of a gateway's second connection.
const secondSuffix = "-2"

// connection returns the part of swanctl.conf about one tunnel. Sections of
// the same name are one.
func (s *strongSwan) connection(t Tunnel, suffix string) string {
	// The agent's side waits for traffic, the other for a's initiative.
	action := pick(s.gateway == s.gateway.lab.A, "trap", "none")
	return fmt.Sprintf(`
connections {
	%[1]s {
		version = %[11]d
		aggressive = %[13]s
		fragmentation = %[16]s
		local_addrs = %[3]s
		remote_addrs = %[4]s
		proposals = %[14]s
		%[17]s
		local {
			auth = psk
			id = %[5]s
		}
		remote {
			auth = psk
			id = %[6]s
		}
		children {
			%[2]s {
				local_ts = %[7]s
				remote_ts = %[8]s
				esp_proposals = %[15]s
				mode = %[12]s
				start_action = %[9]s
				%[18]s
			}
		}
	}
}
secrets {
	ike-%[1]s {
		secret = "%[10]s"
	}
}
`, connName+suffix, childName+suffix, s.gateway.Address, t.Remote, t.LocalID, t.RemoteID, t.LocalSubnet, t.RemoteSubnet, action, t.Key,
		t.Version, pick(t.Transport, "transport", "tunnel"), yesNo(t.Aggressive), t.IKE, t.ESP, yesNo(!t.Whole),
		t.Connection, t.Child)
}
