package daemon

import (
	"regexp"
	"strconv"
	"strings"

	"vpnprobe/evidence"
)

// charonLog reads the lines that charon writes, at its log level 1, while it
// sets a connection up, and fills in what they say of the negotiation. The
// wording is that of strongSwan 5.x and 6.x, whose format strings are in the
// sources under src/libcharon.
type charonLog struct {
	auth evidence.IKEAuth
	ids  []string // unique ids of the IKE SAs that charon began meanwhile
	// keyExchange is set when the child SA is asked for in an exchange of its
	// own, with a KE payload: the PFS group takes part then.
	keyExchange bool
	rekeyFailed bool
	lines       int
}

func newCharonLog() *charonLog {
	return &charonLog{auth: evidence.IKEAuth{By: evidence.ByStrongSwan, Stage: evidence.StageInit}}
}

// line is what one kind of log line says.
type line struct {
	pattern *regexp.Regexp
	read    func(l *charonLog, match []string)
}

// charonLines are looked at in this order, and the first match counts.
var charonLines = []line{
	// ike_init.c, main_mode.c, aggressive_mode.c
	{regexp.MustCompile(`^initiating (?:\w+ Mode )?IKE_SA .*\[(\d+)\] to `), func(l *charonLog, m []string) {
		l.ids = append(l.ids, m[1])
		l.auth.Stage = evidence.StageInit
	}},
	// message.c: the first protected message leaves
	{regexp.MustCompile(`^generating (?:IKE_AUTH request|ID_PROT request 0 \[ ID HASH|AGGRESSIVE request 0 \[ (?:NAT-D NAT-D )?HASH)`), func(l *charonLog, _ []string) {
		l.reach(evidence.StageAuth)
	}},
	{regexp.MustCompile(`^generating (?:CREATE_CHILD_SA|QUICK_MODE) request \d+ \[ (.*)\]`), func(l *charonLog, m []string) {
		l.reach(evidence.StageChild)
		l.auth.Authenticated = evidence.Yes // in an IKE SA that is up
		l.keyExchange = l.keyExchange || strings.Contains(" "+m[1], " KE ")
	}},
	// message.c: the names of notifies, short; a later line has them in full
	{regexp.MustCompile(`^parsed .* \[ (.*)\]`), func(l *charonLog, m []string) {
		for short := range strings.FieldsSeq(m[1]) {
			if name, ok := shortNotifies[short]; ok {
				l.refused(name)
			}
		}
	}},
	// ike_auth.c, psk_authenticator.c
	{regexp.MustCompile(`^authentication of '(.*)' with .* successful`), func(l *charonLog, m []string) {
		l.auth.RemoteID = m[1]
		l.auth.Authenticated = evidence.Yes
	}},
	{regexp.MustCompile(`^tried \d+ shared keys? for '.*' - '(.*)', but MAC mismatched`), func(l *charonLog, m []string) {
		l.auth.RemoteID = m[1]
		l.auth.Authenticated = evidence.No
	}},
	// message.c, psk_v1_authenticator.c: what was sealed with another key
	{regexp.MustCompile(`^(?:could not decrypt payloads|calculated HASH does not match HASH payload|received HASH payload does not match)`), func(l *charonLog, _ []string) {
		if l.auth.Stage == evidence.StageAuth {
			l.auth.Authenticated = evidence.No
		}
	}},
	{regexp.MustCompile(`^constraint check failed: .*identity '.*' required`), func(l *charonLog, _ []string) {
		l.auth.RemoteIDOther = evidence.Yes
	}},
	// main_mode.c, aggressive_mode.c: before the proof of the key is looked at
	{regexp.MustCompile(`^IDir '(.*)' does not match to '`), func(l *charonLog, m []string) {
		l.auth.RemoteID, l.auth.RemoteIDOther = m[1], evidence.Yes
	}},
	{regexp.MustCompile(`^received IDr (.*), but require `), func(l *charonLog, m []string) {
		l.auth.RemoteID, l.auth.RemoteIDOther = m[1], evidence.Yes
	}},
	// ike_sa.c
	{regexp.MustCompile(`^IKE_SA .*\[\d+\] established between .*\[.*\]\.\.\..*?\[(.*)\]$`), func(l *charonLog, m []string) {
		l.reach(evidence.StageChild)
		l.auth.RemoteID, l.auth.RemoteIDOther = m[1], evidence.No
		l.auth.Authenticated = evidence.Yes
	}},
	// child_create.c, quick_mode.c
	{regexp.MustCompile(`^selected proposal: (?:ESP|AH):(.*)$`), func(l *charonLog, m []string) {
		l.auth.ESPChosen = proposalOf(m[1])
	}},
	{regexp.MustCompile(`CHILD_SA .* established with SPIs \S+ \S+ and TS (.* === .*)$`), func(l *charonLog, m []string) {
		l.auth.Stage, l.auth.Notify = evidence.StageComplete, ""
		l.auth.Selectors = strings.TrimSpace(m[1])
	}},
	{regexp.MustCompile(`^unable to install .* in kernel`), func(l *charonLog, m []string) {
		l.auth.CannotLook = "strongSwan was " + m[0] + ", so its own end failed the tunnel"
	}},
	{regexp.MustCompile(`^peer didn't accept (?:DH group|key exchange method) \S+, it requested (\S+)$`), func(l *charonLog, m []string) {
		if l.auth.Stage == evidence.StageChild || l.auth.Stage == evidence.StageComplete {
			l.auth.PFSGroup = proposalOf(m[1])
		}
	}},
	{regexp.MustCompile(`^CHILD_SA rekeying failed, `), func(l *charonLog, _ []string) { l.rekeyFailed = true }},
	// ike_init.c, ike_auth.c, child_create.c, informational.c
	{regexp.MustCompile(`^received ([A-Z0-9_]+) (?:notify error|error notify|notify, no CHILD_SA built)`), func(l *charonLog, m []string) {
		l.refused(m[1])
	}},
}

// shortNotifies are charon's abbreviations (encoding/payloads/notify_payload.c).
var shortNotifies = map[string]string{
	"N(NO_PROP)":     "NO_PROPOSAL_CHOSEN",
	"N(INVAL_KE)":    "INVALID_KE_PAYLOAD",
	"N(AUTH_FAILED)": "AUTHENTICATION_FAILED",
	"N(TS_UNACCEPT)": "TS_UNACCEPTABLE",
	"N(INVAL_SYN)":   "INVALID_SYNTAX",
	"N(INVAL_MAJOR)": "INVALID_MAJOR_VERSION",
	"N(INVAL_ID)":    "INVALID_ID_INFORMATION",
	"N(SINGLE_PAIR)": "SINGLE_PAIR_REQUIRED",
	"N(NO_ADD_SAS)":  "NO_ADDITIONAL_SAS",
	"N(FAIL_CP_REQ)": "FAILED_CP_REQUIRED",
	"N(TS_UNACC)":    "TS_UNACCEPTABLE",
	"N(TEMP_FAIL)":   "TEMPORARY_FAILURE",
}

// refused notes an error notify of the peer. A later step may mend it: a
// group that the peer did not want is followed by another try.
func (l *charonLog) refused(notify string) {
	l.auth.Notify = notify
	if notify == "AUTHENTICATION_FAILED" && l.auth.Stage == evidence.StageAuth {
		l.auth.Authenticated = evidence.No
	}
}

// reach notes a stage, in which nothing was refused yet.
func (l *charonLog) reach(stage evidence.AuthStage) {
	if l.auth.Stage == evidence.StageComplete {
		return
	}
	l.auth.Stage, l.auth.Notify = stage, ""
}

// add reads one line of a group of charon's ("IKE", "ENC", "NET").
func (l *charonLog) add(group, message string) {
	l.lines++
	message = strings.TrimSpace(message)
	for _, known := range charonLines {
		if match := known.pattern.FindStringSubmatch(message); match != nil {
			known.read(l, match)
			break
		}
	}
	// The packets' sizes and addresses say nothing that the rest does not.
	if group == "NET" || boring.MatchString(message) {
		return
	}
	l.auth.Said = said(l.auth.Said, "["+group+"] "+message)
}

// boring lines come with every negotiation and tell nothing of its outcome.
var boring = regexp.MustCompile(`^(?:generating |scheduling |maximum IKE_SA lifetime|peer supports MOBIKE|authentication of .* \(myself\)|received .* vendor ID|vici )`)

// proposalOf turns the daemons' names of algorithms, "AES_CBC_256/HMAC_SHA2_256_128",
// into the keywords of strongSwan's configuration, "aes256-sha256".
func proposalOf(names string) string {
	var keywords []string
	for name := range strings.SplitSeq(strings.TrimSpace(names), "/") {
		if word := keyword(name); word != "" {
			keywords = append(keywords, word)
		}
	}
	return strings.Join(keywords, "-")
}

var (
	cipher = regexp.MustCompile(`^(AES_CBC|AES_CTR|AES_GCM_(?:8|12|16)|AES_CCM_(?:8|12|16)|CAMELLIA_CBC)_(\d+)$`)
	hash   = regexp.MustCompile(`^HMAC_SHA2_(\d+)_\d+$`)
	group  = regexp.MustCompile(`^(MODP|ECP|CURVE)_?(\d+)(_BP)?$`)
)

func keyword(name string) string {
	switch name {
	case "NO_EXT_SEQ", "NONE":
		return ""
	case "EXT_SEQ":
		return "esn"
	case "3DES_CBC":
		return "3des"
	case "CHACHA20_POLY1305", "CHACHA20_POLY1305_256":
		return "chacha20poly1305"
	case "HMAC_SHA1_96":
		return "sha1"
	case "HMAC_MD5_96":
		return "md5"
	case "AES_XCBC_96":
		return "aesxcbc"
	case "DH19", "DH20", "DH21", "DH31": // libreswan's names
		return map[string]string{"DH19": "ecp256", "DH20": "ecp384", "DH21": "ecp521", "DH31": "curve25519"}[name]
	}
	if m := cipher.FindStringSubmatch(name); m != nil {
		family, mode, _ := strings.Cut(strings.ToLower(m[1]), "_")
		mode = strings.ReplaceAll(strings.TrimPrefix(mode, "cbc"), "_", "")
		return family + m[2] + mode
	}
	if m := hash.FindStringSubmatch(name); m != nil {
		return "sha" + m[1]
	}
	if m := group.FindStringSubmatch(name); m != nil {
		return strings.ToLower(m[1] + m[2] + strings.ReplaceAll(m[3], "_", ""))
	}
	return strings.ToLower(clean(name))
}

// narrowed says whether the agreed selectors are fewer than the configured.
// Those that depend on an address ("dynamic") are not compared.
func narrowed(selectors string, local, remote []string) evidence.Fact {
	ours, theirs, ok := strings.Cut(selectors, " === ")
	if !ok || len(local) == 0 || len(remote) == 0 {
		return evidence.Unknown
	}
	for _, s := range append(append([]string(nil), local...), remote...) {
		if strings.HasPrefix(s, "dynamic") {
			return evidence.Unknown
		}
	}
	return evidence.FactOf(!sameWords(ours, local) || !sameWords(theirs, remote))
}

func sameWords(agreed string, configured []string) bool {
	words := make(map[string]bool)
	for w := range strings.FieldsSeq(agreed) {
		words[w] = true
	}
	for _, w := range configured {
		if !words[w] {
			return false
		}
	}
	return len(words) == len(configured)
}

// number reports whether s is one of charon's unique ids.
func number(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}
