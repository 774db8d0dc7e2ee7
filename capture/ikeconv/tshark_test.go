package ikeconv

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// sharkMessage is an IKEv2 message as tshark reads it.
type sharkMessage struct {
	from     side
	exchange int
	response bool
	key      string // SPI of the initiator, exchange, message ID
	fragment string // number, of a fragmented message
	bytes    string
}

// sharkMessages returns the messages of IKEv2 in a capture.
func sharkMessages(t *testing.T, file string) []sharkMessage {
	t.Helper()
	path, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("no tshark to compare with: install the package tshark")
	}
	fields := []string{"ip.src", "isakmp.ispi", "isakmp.exchangetype", "isakmp.messageid", "isakmp.flags", "isakmp.frag.number", "udp.payload"}
	args := []string{"-n", "-r", file, "-Y", "isakmp.version == 0x20", "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command(path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.Bytes())
	}
	var list []sharkMessage
	for line := range strings.Lines(string(out)) {
		c := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if len(c) != len(fields) {
			t.Fatalf("tshark wrote %q", line)
		}
		m := sharkMessage{from: theirs, key: strings.Join(c[1:4], " "), fragment: c[5], bytes: c[6]}
		if c[0] == ourAddress.String() {
			m.from = ours
		}
		flags, err := strconv.ParseUint(c[4], 0, 8)
		if err != nil {
			t.Fatal(err)
		}
		m.response = ike.Flags(flags)&ike.FlagResponse != 0
		if m.exchange, err = strconv.Atoi(c[2]); err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

// sharkCounts are requests, retransmissions, and requests that were answered
// in the end, of either side.
type sharkCounts struct{ requests, again, answered [2]uint64 }

// countShark counts messages. tshark has no word for a retransmission of IKE: a
// request is one if the same side sent the same bytes before.
func countShark(list []sharkMessage) (n sharkCounts) {
	sent := make(map[string]bool)
	newest := make(map[string]string)
	answered := make(map[string]bool)
	for _, m := range list {
		if m.fragment != "" && m.fragment != "1" {
			continue
		}
		if !m.response {
			request := fmt.Sprint(m.from, m.key)
			newest[request] = m.bytes
			if sent[request+m.bytes] {
				n.again[m.from]++
				continue
			}
			sent[request+m.bytes] = true
			n.requests[m.from]++
			continue
		}
		asker := m.from.other()
		request := fmt.Sprint(asker, m.key)
		if b, ok := newest[request]; ok && !answered[request+b] {
			answered[request+b] = true
			n.answered[asker]++
		}
	}
	return n
}

func TestSameAsTshark(t *testing.T) {
	files, err := filepath.Glob("testdata/*v2-*.pcap")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	// One file, for tshark takes long to start. No two cases share an SPI.
	const fileHeader = 24
	var all []byte
	var got sharkCounts
	more := make(map[ike.ExchangeType]int)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if all != nil {
			b = b[fileHeader:]
		}
		all = append(all, b...)
		messages := readCapture(t, file, ourAddress)
		for _, m := range messages {
			h, err := ike.ParseHeader(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			more[h.Exchange]++
		}
		_, r := hear(messages)
		k := r.Since(Reading{})
		for i, d := range [2]evidence.IKEDirection{k.Out, k.In} {
			got.requests[i] += d.Requests
			got.again[i] += d.Retransmissions
			got.answered[i] += d.Answered + d.Unanswered // all late answers of these captures came
		}
	}
	path := filepath.Join(t.TempDir(), "all.pcap")
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	shark := sharkMessages(t, path)
	for _, m := range shark {
		more[ike.ExchangeType(m.exchange)]--
	}
	for x, n := range more {
		if n != 0 {
			t.Errorf("%d more messages of %v than to tshark", n, x)
		}
	}
	if want := countShark(shark); got != want || want.requests[ours] == 0 || want.again[theirs] == 0 {
		t.Errorf("%+v, and %+v to tshark", got, want)
	}
}
