package daemon

import (
	"net/netip"
	"regexp"
	"strings"

	"vpnprobe/evidence"
)

// plutoLog reads the lines that pluto sends to the whack that waits for a
// negotiation. The wording changes with libreswan's releases: these are of
// 3.2x to 5.x.
type plutoLog struct {
	conn     string
	auth     evidence.IKEAuth
	version  int
	lines    int  // about the connection
	decided  bool // pluto would only repeat itself
	rekeying bool
	pfs      bool // IKEv1: quick mode has a group
}

func newPlutoLog(conn string) *plutoLog {
	return &plutoLog{conn: conn, auth: evidence.IKEAuth{By: evidence.ByLibreswan, Stage: evidence.StageInit}}
}

// 003 "cloud"[1] 198.51.100.2 #4: text
var plutoLine = regexp.MustCompile(`^(\d{3}) (?:"([^"]+)"(?:\[\d+\] [^ ]+)?(?: #\d+)?: )?(.*)$`)

// plutoLines are looked at in this order, and the first match counts.
var plutoLines = []struct {
	pattern *regexp.Regexp
	read    func(l *plutoLog, match []string)
}{
	{regexp.MustCompile(`^initiating IKEv([12]) `), func(l *plutoLog, m []string) {
		l.version = int(m[1][0] - '0')
		l.auth.Stage = evidence.StageInit
	}},
	{regexp.MustCompile(`^sent (?:IKE_AUTH request|Main Mode I3)`), func(l *plutoLog, _ []string) {
		l.auth.Stage, l.auth.Notify = evidence.StageAuth, ""
	}},
	// IKE_SA_INIT answered by an error, which is not authenticated: pluto
	// waits for another answer, and so do not we.
	{regexp.MustCompile(`(?:IKE_SA_INIT (?:message|response) containing|received unauthenticated) (?:v2N_)?([A-Z0-9_]+)(?: notification|.* ignored)`), func(l *plutoLog, m []string) {
		if l.auth.Stage == evidence.StageInit && m[1] != "INVALID_KE_PAYLOAD" {
			l.auth.Notify, l.decided = m[1], true
		}
	}},
	{regexp.MustCompile(`^(?:ignoring (?:un)?(?:secured )?informational payload|received and ignored notification payload:|ignoring .*notification payload:?) ([A-Z0-9_]+)`), func(l *plutoLog, m []string) {
		l.auth.Notify, l.decided = m[1], true
	}},
	{regexp.MustCompile(`authentication request rejected by peer: (?:v2N_)?([A-Z0-9_]+)`), func(l *plutoLog, m []string) {
		l.auth.Notify, l.auth.Authenticated = m[1], evidence.No
		l.decided = true // before it begins anew
	}},
	{regexp.MustCompile(`^authentication failed: computed hash does not match hash received from peer \S+ '(.*)'`), func(l *plutoLog, m []string) {
		l.auth.RemoteID, l.auth.Authenticated = plutoID(m[1]), evidence.No
		l.decided = true
	}},
	// IKEv1: what was sealed with another key opens as noise.
	{regexp.MustCompile(`^(?:malformed payload in packet|received Hash Payload does not match computed value|.* Payload is larger than can fit)`), func(l *plutoLog, _ []string) {
		if l.auth.Stage == evidence.StageAuth {
			l.auth.Authenticated, l.decided = evidence.No, true
		}
	}},
	{regexp.MustCompile(`^Peer ID is \w+: '(.*)'`), func(l *plutoLog, m []string) {
		l.auth.RemoteID = plutoID(m[1])
	}},
	{regexp.MustCompile(`^[Pp]eer ID (?:\w+ )?'(.*?)' (?:mismatched|does not match|doesn't match)`), func(l *plutoLog, m []string) {
		l.auth.RemoteID, l.auth.RemoteIDOther = plutoID(m[1]), evidence.Yes
		l.decided = true
	}},
	{regexp.MustCompile(`established IKE SA; authenticated peer .* '(.*)'`), func(l *plutoLog, m []string) {
		l.auth.RemoteID = plutoID(m[1])
		l.authenticated()
	}},
	{regexp.MustCompile(`^(?:IKE|ISAKMP) SA established \{`), func(l *plutoLog, _ []string) { l.authenticated() }},
	{regexp.MustCompile(`(?:rejected Child SA with|contained the error notification|failed with error notification|was rejected with) (?:v2N_)?([A-Z0-9_]+)`), func(l *plutoLog, m []string) {
		l.auth.Notify, l.decided = m[1], true
		switch {
		case l.rekeying:
			l.auth.Rekey = evidence.No
		case m[1] == "AUTHENTICATION_FAILED":
			l.auth.Authenticated = evidence.No
		default:
			l.auth.Stage = evidence.StageChild
		}
	}},
	// Our own end refuses the peer's answer.
	{regexp.MustCompile(`^CHILD SA failed: (?:v2N_)?([A-Z0-9_]+)`), func(l *plutoLog, m []string) {
		l.auth.Notify, l.decided = m[1], true
	}},
	{regexp.MustCompile(` client subnet returned doesn't match my proposal`), func(l *plutoLog, _ []string) {
		l.auth.Narrowed = evidence.Yes
	}},
	{regexp.MustCompile(`^initiating Quick Mode .* pfsgroup=([^ }]+)`), func(l *plutoLog, m []string) {
		l.pfs = m[1] != "no-pfs"
	}},
	{regexp.MustCompile(`^initiator rekeyed Child SA `), func(l *plutoLog, _ []string) {
		l.auth.Rekey, l.decided = evidence.Yes, true
	}},
	{regexp.MustCompile(`(?:established Child SA|IPsec SA established)`), func(l *plutoLog, m []string) {
		l.auth.Stage, l.auth.Notify = evidence.StageComplete, ""
	}},
}

func (l *plutoLog) authenticated() {
	l.auth.Stage, l.auth.Notify = evidence.StageChild, ""
	l.auth.Authenticated, l.auth.RemoteIDOther = evidence.Yes, evidence.No
}

var (
	plutoSelectors = regexp.MustCompile(`\[([^\] ]+?):[^\]]*\] -> \[([^\] ]+?):[^\]]*\]`)
	plutoESP       = regexp.MustCompile(`\{(?:ESP|AH)[^}]* xfrm=(\S+)`)
)

// add reads one line that whack printed.
func (l *plutoLog) add(text string) {
	m := plutoLine.FindStringSubmatch(text)
	if m == nil || m[2] != "" && m[2] != l.conn {
		return
	}
	code, message := m[1], m[3]
	if m[2] != "" {
		l.lines++
	}
	// RC_UNKNOWN_NAME to RC_OPPOFAILURE (include/whack.h): pluto did not begin.
	if code >= "021" && code <= "033" {
		l.auth.CannotLook, l.decided = "libreswan did not begin: "+cut(clean(message)), true
	}
	for _, known := range plutoLines {
		if match := known.pattern.FindStringSubmatch(message); match != nil {
			known.read(l, match)
			break
		}
	}
	if !l.rekeying && l.auth.Stage == evidence.StageComplete {
		l.agreed(message)
	}
	if !strings.HasPrefix(message, "sent ") {
		l.auth.Said = said(l.auth.Said, message)
	}
}

// agreed reads what the line about a new child SA says of it.
func (l *plutoLog) agreed(message string) {
	if m := plutoESP.FindStringSubmatch(message); m != nil {
		l.auth.ESPChosen = proposalOf(strings.ReplaceAll(m[1], "-", "/"))
	}
	if m := plutoSelectors.FindStringSubmatch(message); m != nil {
		l.auth.Selectors = network(m[1]) + " === " + network(m[2])
	}
	if l.pfs {
		l.auth.Rekey = evidence.Yes
	}
}

// plutoID turns pluto's notation of a name, "@b.example", into the plain one.
func plutoID(id string) string {
	if name, ok := strings.CutPrefix(id, "@"); ok && !strings.HasPrefix(name, "#") && !strings.HasPrefix(name, "[") && !strings.HasPrefix(name, "~") {
		return name
	}
	return id
}

// network writes a range of addresses as the one prefix that it is, where it
// is one.
func network(addresses string) string {
	first, last, ok := strings.Cut(addresses, "-")
	from, err := netip.ParseAddr(first)
	if err != nil {
		return addresses
	}
	if !ok {
		return netip.PrefixFrom(from, from.BitLen()).String()
	}
	to, err := netip.ParseAddr(last)
	if err != nil || to.BitLen() != from.BitLen() {
		return addresses
	}
	for bits := 0; bits <= from.BitLen(); bits++ {
		p := netip.PrefixFrom(from, bits)
		if p.Masked() == p && lastOf(p) == to {
			return p.String()
		}
	}
	return addresses
}

// lastOf returns the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
