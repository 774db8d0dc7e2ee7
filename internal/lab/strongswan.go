//go:build linux

package lab

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
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
	s.write("strongswan.conf", fmt.Sprintf(strongswanConf, s.socket, s.Log(), s.gateway.Tunnel.Settings))
	s.run("charon-systemd", filepath.Join(s.dir, "output"), s.env())
}

func (s *strongSwan) configure() {
	s.gateway.lab.t.Helper()
	s.await(s.socket)
	s.swanctl("--load-all", "--file", s.write("swanctl.conf", s.connection()))
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

// connection returns the gateway's swanctl.conf.
func (s *strongSwan) connection() string {
	t := s.gateway.Tunnel
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
			}
		}
	}
}
secrets {
	ike-%[1]s {
		secret = "%[10]s"
	}
}
`, connName, childName, s.gateway.Address, t.Remote, t.LocalID, t.RemoteID, t.LocalSubnet, t.RemoteSubnet, action, t.Key,
		t.Version, pick(t.Transport, "transport", "tunnel"), yesNo(t.Aggressive), t.IKE, t.ESP, yesNo(!t.Whole))
}
