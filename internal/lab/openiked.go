//go:build linux

package lab

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// openIKEDPrograms is where OpenIKED's programs are. Installed as a package,
// it would start at once, on the host.
const openIKEDPrograms = hostRoot + unpacked + "/openiked/usr/sbin"

// openIKED is an iked with ikectl as its remote control.
type openIKED struct {
	process
}

// ikedUser is whom iked becomes, and home its jail.
const ikedUser = "_iked:x:994:994::/run/iked-empty:/usr/sbin/nologin\n"

func (k *openIKED) socket() string { return "/run/iked-" + k.gateway.Name + ".sock" }

func (k *openIKED) launch() {
	k.gateway.lab.t.Helper()
	k.gateway.Run("modprobe -a af_key")
	k.gateway.Run("mkdir -p /run/iked-empty /etc/iked/private /etc/iked/pubkeys /etc/iked/ca /etc/iked/certs /etc/iked/crls")
	k.control(nil, "openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "/etc/iked/private/local.key") // it wants one, used or not
	if err := addUser(ikedUser); err != nil {
		k.gateway.lab.t.Fatal("lab: ", err)
	}
	k.run(fmt.Sprintf("%s/iked -d -vv -s %s -f %s", openIKEDPrograms, k.socket(), k.write("iked.conf", k.policy())), k.Log())
}

// configure has nothing to tell: iked reads its configuration at the start.
func (k *openIKED) configure() {
	k.gateway.lab.t.Helper()
	k.await(k.socket())
	// It answers before it knows its whole policy. The last thing that its
	// processes tell each other is this, and only very verbosely.
	configured := func() bool {
		log, err := os.ReadFile(k.Log())
		return err == nil && strings.Contains(string(log), "config_getstatic: ")
	}
	if !eventually(daemonPatience, configured) {
		k.gateway.lab.t.Fatalf("lab: OpenIKED on %s was never configured", k.gateway.Name)
	}
}

// ikedSA matches an association in the listing of iked's own. One that was
// refused is in it for a while, as CLOSED.
var ikedSA = regexp.MustCompile(`(?m)^iked_sas: .*\n`)

func (k *openIKED) HalfOpen() int {
	k.gateway.lab.t.Helper()
	n := 0
	for _, sa := range ikedSA.FindAllString(k.ikectl("show", "sa"), -1) {
		if !strings.Contains(sa, " ESTABLISHED ") && !strings.Contains(sa, " CLOSED ") {
			n++
		}
	}
	return n
}

func (k *openIKED) Initiate() {
	k.gateway.lab.t.Helper()
	k.gateway.lab.t.Fatal("lab: OpenIKED only answers here")
}

// Attempt is what it does by itself.
func (k *openIKED) Attempt() { k.Initiate() }

// Rekey is not for OpenIKED, which renews its associations by itself only.
func (k *openIKED) Rekey() {
	k.gateway.lab.t.Helper()
	k.gateway.lab.t.Fatal("lab: OpenIKED does not renew associations on demand")
}

func (k *openIKED) Terminate() {
	k.gateway.lab.t.Helper()
	k.ikectl("reset", "sa")
}

func (k *openIKED) ikectl(args ...string) string {
	k.gateway.lab.t.Helper()
	return k.control(nil, openIKEDPrograms+"/ikectl", append([]string{"-s", k.socket()}, args...)...)
}

// policy returns the gateway's iked.conf.
func (k *openIKED) policy() string {
	t := k.gateway.Tunnel
	return fmt.Sprintf(`%s
set %s
ikev2 %q passive %s esp from %s to %s \
	local %s peer %s \
	%s %s \
	srcid %s dstid %s \
	psk %q
`, t.Settings, pick(t.Whole, "nofragmentation", "fragmentation"), connName, pick(t.Transport, "transport", "tunnel"), t.LocalSubnet, t.RemoteSubnet, k.gateway.Address, t.Remote,
		join(t.IKE, " ", func(s suite) string { return "ikesa " + ikedSuite(s, true) }),
		join(t.ESP, " ", func(s suite) string { return "childsa " + ikedSuite(s, false) }),
		t.LocalID, t.RemoteID, t.Key)
}

var (
	ikedCipher = regexp.MustCompile(`^aes(\d+)(gcm)?\d*$`)
	ikedHash   = strings.NewReplacer("sha1", "hmac-sha1", "sha", "hmac-sha2-")
)

// ikedSuite writes a proposal as OpenIKED reads it. Only one of IKE has a
// pseudo-random function, by default that of the integrity algorithm.
func ikedSuite(s suite, ike bool) string {
	match := ikedCipher.FindStringSubmatch(s.encryption)
	text := "enc aes-" + match[1]
	if match[2] != "" {
		text += "-gcm"
	}
	if s.integrity != "" {
		text += " auth " + ikedHash.Replace(s.integrity)
	}
	if ike {
		text += " prf " + ikedHash.Replace(max(s.prf, s.integrity))
	}
	if s.group != "" {
		text += " group " + s.group
	}
	return text
}

// addUser adds a line to the guest's users, and a group of the same name.
func addUser(line string) error {
	fields := strings.Split(line, ":")
	group := fmt.Sprintf("%s:x:%s:\n", fields[0], fields[3])
	for file, text := range map[string]string{"/etc/passwd": line, "/etc/group": group} {
		old, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.Contains(string(old), "\n"+fields[0]+":") {
			continue
		}
		if err := os.WriteFile(file, append(old, text...), 0o644); err != nil {
			return err
		}
	}
	return nil
}
