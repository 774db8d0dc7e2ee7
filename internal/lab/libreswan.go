//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// libreswanPrograms is where libreswan's programs are in the guest. Its
// package cannot be installed beside strongSwan's.
const libreswanPrograms = "/usr/libexec/ipsec"

// libreswan is a pluto with whack as its remote control.
type libreswan struct {
	process
}

// rundir holds the sockets. A path in the results directory cannot.
func (p *libreswan) rundir() string {
	if p.gateway == p.gateway.lab.A {
		return "/run/pluto" // its usual place, where the agent looks
	}
	return "/run/pluto-" + p.gateway.Name
}

func (p *libreswan) socket() string { return filepath.Join(p.rundir(), "pluto.ctl") }

func (p *libreswan) launch() {
	p.gateway.lab.t.Helper()
	if _, err := os.Stat(p.nssdir()); err != nil { // the first time
		p.gateway.Run("mkdir -p " + p.rundir() + " " + p.nssdir())
		p.control(nil, "certutil", "-N", "-d", "sql:"+p.nssdir(), "--empty-password")
	}
	t := p.gateway.Tunnel
	secrets := p.write("ipsec.secrets", fmt.Sprintf("%s %s : PSK \"%s\"\n", plutoID(t.LocalID), plutoID(t.RemoteID), t.Key))
	p.run(fmt.Sprintf("%s/pluto --nofork --stderrlog --no-dnssec --config %s --rundir %s --nssdir %s --ipsecdir %s --secretsfile %s",
		libreswanPrograms, p.write("ipsec.conf", p.connection()), p.rundir(), p.nssdir(), p.dir, secrets), p.Log())
}

// nssdir is where pluto keeps a certificate store, even an empty one.
func (p *libreswan) nssdir() string { return "/var/lib/ipsec-" + p.gateway.Name }

func (p *libreswan) configure() {
	p.gateway.lab.t.Helper()
	p.await(p.socket())
	p.whack("--listen")
	p.control(nil, libreswanPrograms+"/addconn", "--config", filepath.Join(p.dir, "ipsec.conf"), "--ctlsocket", p.socket(), connName)
	if p.gateway == p.gateway.lab.A {
		p.whack("--route", "--name", connName)
	}
}

// plutoHalfOpen matches pluto's counts of handshakes that are not
// authenticated: those of IKEv1 are under open.
var plutoHalfOpen = regexp.MustCompile(`current\.states\.iketype\.(?:halfopen|open)=(\d+)`)

func (p *libreswan) HalfOpen() int {
	p.gateway.lab.t.Helper()
	status := p.whack("--globalstatus")
	counts := plutoHalfOpen.FindAllStringSubmatch(status, -1)
	if len(counts) != 2 {
		p.gateway.lab.t.Fatalf("lab: libreswan on %s: no count of half-open handshakes:\n%s", p.gateway.Name, status)
	}
	sum := 0
	for _, count := range counts {
		n, _ := strconv.Atoi(count[1])
		sum += n
	}
	return sum
}

func (p *libreswan) Initiate() {
	p.gateway.lab.t.Helper()
	p.whack("--initiate", "--name", connName)
}

func (p *libreswan) Terminate() {
	p.gateway.lab.t.Helper()
	p.whack("--terminate", "--name", connName)
}

func (p *libreswan) Attempt() {
	p.gateway.lab.t.Helper()
	p.whack("--initiate", "--asynchronous", "--name", connName)
}

func (p *libreswan) Rekey() {
	p.gateway.lab.t.Helper()
	p.whack("--rekey-ipsec", "--asynchronous", "--name", connName)
}

func (p *libreswan) whack(args ...string) string {
	p.gateway.lab.t.Helper()
	return p.control(nil, libreswanPrograms+"/whack", append([]string{"--ctlsocket", p.socket()}, args...)...)
}

// connection returns the gateway's ipsec.conf. No updown script: the default
// route leads to where the policies take hold.
func (p *libreswan) connection() string {
	t := p.gateway.Tunnel
	return fmt.Sprintf(`config setup
	ikev1-policy=accept
	%[1]s

conn %[2]s
	authby=secret
	ikev2=%[3]s
	aggressive=%[4]s
	left=%[5]s
	leftid=%[6]s
	leftsubnet=%[7]s
	leftupdown=%%disabled
	right=%[8]s
	rightid=%[9]s
	rightsubnet=%[10]s
	ike=%[11]s
	phase2alg=%[12]s
	pfs=%[13]s
	type=%[14]s
	fragmentation=%[15]s
	auto=ignore
`, t.Settings, connName, yesNo(t.Version == 2), yesNo(t.Aggressive), p.gateway.Address, plutoID(t.LocalID), t.LocalSubnet,
		t.Remote, plutoID(t.RemoteID), t.RemoteSubnet, join(t.IKE, ",", plutoSuite), join(t.ESP, ",", plutoSuite),
		yesNo(suites(t.ESP)[0].group != ""), pick(t.Transport, "transport", "tunnel"), yesNo(!t.Whole))
}

func yesNo(b bool) string { return pick(b, "yes", "no") }

// plutoID marks domain names: pluto would resolve them.
func plutoID(id string) string {
	if fqdn(id) {
		return "@" + id
	}
	return id
}

var aead = regexp.MustCompile(`^aes(128|192|256)gcm16$`)

// plutoSuite writes a proposal as libreswan reads it.
func plutoSuite(s suite) string {
	text := aead.ReplaceAllString(s.encryption, "aes_gcm$1")
	switch {
	case s.integrity == "" || s.prf == "" || s.prf == s.integrity:
		if hash := s.integrity + s.prf; hash != "" {
			text += "-" + plutoHashes[max(s.integrity, s.prf)]
		}
	default:
		text += "-" + plutoHashes[s.integrity] + plutoTruncation[s.integrity] + "-" + plutoHashes[s.prf]
	}
	if s.group != "" {
		text += "-" + plutoGroup.ReplaceAllString(s.group, "ecp_$1")
	}
	return text
}

var (
	plutoHashes     = map[string]string{"md5": "md5", "sha1": "sha1", "sha256": "sha2_256", "sha384": "sha2_384", "sha512": "sha2_512"}
	plutoTruncation = map[string]string{"sha1": "_96", "sha256": "_128", "sha384": "_192", "sha512": "_256"} // makes it an integrity algorithm
	plutoGroup      = regexp.MustCompile(`^ecp(\d+)$`)
)
