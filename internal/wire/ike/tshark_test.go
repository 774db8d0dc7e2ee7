package ike

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tshark runs tshark, or skips the test where there is none.
func tshark(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("no tshark to compare with: install the package tshark")
	}
	var stderr bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.Bytes())
	}
	return out
}

// dissection is what two readers of one message must agree on.
type dissection struct {
	Exchange, MessageID, Flags     string
	Payloads, Notifies             string
	Encryption, PRF, Integ, Groups string // of IKEv2 proposals
	KEGroup                        string
	EncryptionV1, HashV1, GroupV1  string
	VendorIDs                      string
}

// fields are tshark's names of a dissection's fields, in order.
var fields = []string{
	"isakmp.exchangetype", "isakmp.messageid", "isakmp.flags",
	"isakmp.typepayload", "isakmp.notify.msgtype",
	"isakmp.tf.id.encr", "isakmp.tf.id.prf", "isakmp.tf.id.integ", "isakmp.tf.id.dh",
	"isakmp.key_exchange.dh_group",
	"isakmp.ike.attr.encryption_algorithm", "isakmp.ike.attr.hash_algorithm", "isakmp.ike.attr.group_description",
	"isakmp.vid_bytes",
}

// dissect returns what this package finds in a message.
func dissect(t *testing.T, m Message) dissection {
	t.Helper()
	d := dissection{
		Exchange:  fmt.Sprintf("%d", m.Exchange),
		MessageID: fmt.Sprintf("0x%08x", m.MessageID),
		Flags:     fmt.Sprintf("0x%02x", uint8(m.Flags)),
	}
	add := func(to *string, format string, v any) {
		if *to != "" {
			*to += ","
		}
		*to += fmt.Sprintf(format, v)
	}
	for _, p := range m.Payloads {
		add(&d.Payloads, "%d", p.Type)
		v, _, _, err := parseBody(p)
		if err != nil {
			t.Error(err)
		}
		switch v := v.(type) {
		case Notify:
			add(&d.Notifies, "%d", v.Type)
		case NotifyV1:
			add(&d.Notifies, "%d", v.Type)
		case KeyExchange:
			add(&d.KEGroup, "%d", v.Group)
		case []Proposal:
			for _, proposal := range v {
				add(&d.Payloads, "%d", PayloadProposalV1)
				for _, transform := range proposal.Transforms {
					add(&d.Payloads, "%d", PayloadTransformV1)
					to := map[TransformType]*string{
						TransformEncryption: &d.Encryption, TransformPRF: &d.PRF, TransformIntegrity: &d.Integ, TransformKeyExchange: &d.Groups,
					}[transform.Type]
					add(to, "%d", transform.ID)
				}
			}
		case SAV1:
			for _, proposal := range v.Proposals {
				add(&d.Payloads, "%d", PayloadProposalV1)
				for _, transform := range proposal.Transforms {
					add(&d.Payloads, "%d", PayloadTransformV1)
					for _, a := range transform.Attributes {
						if to := map[uint16]*string{AttrV1Encryption: &d.EncryptionV1, AttrV1Hash: &d.HashV1, AttrV1Group: &d.GroupV1}[a.Type]; to != nil {
							add(to, "%d", a.Value)
						}
					}
				}
			}
		default:
			if p.Type == PayloadVendorID || p.Type == PayloadVendorIDV1 {
				add(&d.VendorIDs, "%x", p.Body)
			}
		}
	}
	return d
}

// tshark and this package find the same in every message of the captures.
func TestSameAsTshark(t *testing.T) {
	ours := make(map[string]map[int]Message)
	for _, c := range captured(t) {
		m, err := Parse(c.message)
		if err != nil {
			t.Fatal(err)
		}
		if ours[c.file] == nil {
			ours[c.file] = make(map[int]Message)
		}
		ours[c.file][c.frame] = m
	}
	compared := 0
	for _, file := range slices.Sorted(maps.Keys(ours)) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			args := []string{"-n", "-r", file, "-Y", "isakmp", "-T", "fields", "-E", "separator=|", "-e", "frame.number"}
			for _, f := range fields {
				args = append(args, "-e", f)
			}
			for line := range strings.Lines(string(tshark(t, args...))) {
				column := strings.Split(strings.TrimSuffix(line, "\n"), "|")
				frame, err := strconv.Atoi(column[0])
				if err != nil || len(column) != 1+len(fields) {
					t.Fatalf("tshark wrote %q", line)
				}
				m, ok := ours[file][frame]
				if !ok {
					t.Errorf("frame %d is IKE to tshark only", frame)
					continue
				}
				delete(ours[file], frame)
				if m.Version.Major() > 2 {
					continue // tshark reads no such message
				}
				c := column[1:]
				theirs := dissection{c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], c[12], c[13]}
				if got := dissect(t, m); got != theirs {
					t.Errorf("frame %d:\nhere   %+v\ntshark %+v", frame, got, theirs)
				}
				compared++
			}
			for frame := range ours[file] {
				t.Errorf("frame %d is not IKE to tshark", frame)
			}
		})
	}
	if compared == 0 && !t.Failed() {
		t.Skip("nothing was compared")
	}
}

// tsharkTables says which of tshark's own tables hold the names of a registry.
// A table of IKEv1's and one of IKEv2's may be of one field: either may agree.
var tsharkTables = map[string]string{
	"ikev2-parameters-1":   "isakmp.exchangetype",
	"ikev2-parameters-5":   "isakmp.tf.id.encr",
	"ikev2-parameters-6":   "isakmp.tf.id.prf",
	"ikev2-parameters-7":   "isakmp.tf.id.integ",
	"ikev2-parameters-8":   "isakmp.tf.id.dh",
	"ikev2-parameters-10":  "isakmp.id.type",
	"ikev2-parameters-12":  "isakmp.auth.method",
	"ikev2-parameters-14":  "isakmp.notify.msgtype",
	"ikev2-parameters-16":  "isakmp.notify.msgtype",
	"ikev2-parameters-19":  "isakmp.ts.type",
	"ikev2-parameters-20":  "isakmp.cfg.type",
	"ikev2-parameters-21":  "isakmp.cfg.attr.type",
	"ipsec-registry-2":     "isakmp.ike.attr.type",
	"ipsec-registry-4":     "isakmp.ike.attr.encryption_algorithm",
	"ipsec-registry-6":     "isakmp.ike.attr.hash_algorithm",
	"ipsec-registry-8":     "isakmp.ike.attr.authentication_method",
	"ipsec-registry-24":    "isakmp.notify.msgtype",
	"isakmp-notify-status": "isakmp.notify.msgtype",
	"isakmp-registry-31":   "isakmp.id.type",
}

// The registries in testdata are transcriptions. tshark's tables, where they
// have a number, name the same.
func TestRegistriesAgainstTshark(t *testing.T) {
	tables := tsharkValues(t)
	for _, tt := range registries {
		table := tables[tsharkTables[tt.file]]
		if tsharkTables[tt.file] == "" {
			continue
		}
		same := 0
		for n, name := range registry(t, tt.file, tt.column) {
			theirs := table[n]
			if n == 0 || len(theirs) == 0 || knownAs(theirs[len(theirs)-1], name) {
				continue
			}
			if slices.ContainsFunc(theirs, func(s string) bool { return plain(s) == plain(name) }) {
				same++
			} else {
				t.Errorf("%s: %d is %q in testdata and %q to tshark", tt.file, n, name, theirs)
			}
		}
		if same == 0 {
			t.Errorf("%s: no number to compare", tt.file)
		}
	}
	// What is in use without being registered.
	for _, tt := range []struct {
		field  string
		number int
		name   string
	}{
		{"isakmp.ike.attr.encryption_algorithm", int(EncrV1SM4), "SM4-CBC"},
		{"isakmp.ike.attr.hash_algorithm", int(HashV1SM3), "SM3"},
		{"isakmp.ike.attr.authentication_method", int(AuthV1HybridInitRSA), "HybridInitRSA"},
		{"isakmp.ike.attr.authentication_method", int(AuthV1XAuthInitShared), "XAUTHInitPreShared"},
		{"isakmp.ike.attr.authentication_method", int(AuthV1XAuthInitRSA), "XAUTHInitRSA"},
		{"isakmp.exchangetype", int(TransactionV1), "Transaction (Config Mode)"},
		{"isakmp.typepayload", int(PayloadNATDDraftV1), "NAT-D (draft-ietf-ipsec-nat-t-ike-01 to 03)"},
		{"isakmp.typepayload", int(PayloadNATOADraftV1), "NAT-OA (draft-ietf-ipsec-nat-t-ike-01 to 03)"},
		{"isakmp.typepayload", int(PayloadFragmentV1), "Cisco-Fragmentation"},
		{"isakmp.notify.msgtype", 36136, NotifyTypeV1(36136).String()},
		{"isakmp.notify.msgtype", 36137, NotifyTypeV1(36137).String()},
	} {
		if names := tables[tt.field][tt.number]; !slices.Contains(names, tt.name) {
			t.Errorf("%d is %s here and %q to tshark", tt.number, tt.name, names)
		}
	}
}

// tsharkValues returns tshark's names of numbers, by field and number.
func tsharkValues(t *testing.T) map[string]map[int][]string {
	t.Helper()
	tables := make(map[string]map[int][]string)
	lines := bufio.NewScanner(bytes.NewReader(tshark(t, "-G", "values")))
	for lines.Scan() {
		c := strings.Split(lines.Text(), "\t")
		if len(c) < 4 || !strings.HasPrefix(c[1], "isakmp.") || c[0] == "R" && c[2] != c[3] {
			continue
		}
		n, err := strconv.Atoi(c[2])
		if err != nil {
			continue
		}
		if tables[c[1]] == nil {
			tables[c[1]] = make(map[int][]string)
		}
		tables[c[1]][n] = append(tables[c[1]][n], c[len(c)-1])
	}
	return tables
}

// known has what tshark 4.0 calls otherwise than the registry does.
var known = map[string]string{
	"AES-GCM with a 8 octet ICV":            "ENCR_AES_GCM_8",
	"AES-GCM with a 12 octet ICV":           "ENCR_AES_GCM_12",
	"AES-GCM with a 16 octet ICV":           "ENCR_AES_GCM_16",
	"ENCR_CAMELLIA_CCM with an 8-octet ICV": "ENCR_CAMELLIA_CCM_8",
	"ENCR_CAMELLIA_CCM with a 12-octet ICV": "ENCR_CAMELLIA_CCM_12",
	"ENCR_CAMELLIA_CCM with a 16-octet ICV": "ENCR_CAMELLIA_CCM_16",
	"224-bit Brainpool ECP group":           "brainpoolP224r1",
	"256-bit Brainpool ECP group":           "brainpoolP256r1",
	"384-bit Brainpool ECP group":           "brainpoolP384r1",
	"512-bit Brainpool ECP group":           "brainpoolP512r1",
	"Group-Prime":                           "Group Prime/Irreducible Polynomial",
	"SENDER_REQUEST_ID":                     "GROUP_SENDER", // a draft's name
	// Slips of tshark's.
	"PRF_AES128_CBC":     "PRF_AES128_XCBC",      // RFC 4434
	"PRF_AES128_CMAC6":   "PRF_AES128_CMAC",      // RFC 4615
	"CHILD_SA_NOT_FOUND": "AUTHORIZATION_FAILED", // of 46; of 44 it is right
}

// knownAs reports whether tshark is known to call the registry's name so.
func knownAs(theirs, registry string) bool {
	if theirs == "KEY_LIST" { // 12, of IKEv2 and of IKEv1
		return registry == "ID_FC_NAME" || registry == "ID_LIST"
	}
	return known[theirs] == registry
}

// plain reduces a name to what the spellings of tshark and the registry share.
func plain(s string) string {
	s = regexp.MustCompile(`^(Default|Alternate|default|alternate|ID_) ?`).ReplaceAllString(strings.TrimSpace(s), "")
	return regexp.MustCompile(`[^a-z0-9]`).ReplaceAllString(strings.ToLower(s), "")
}
