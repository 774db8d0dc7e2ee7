package report

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"vpnprobe/evidence"
)

// Progress shows how a run gets on, on one line of a terminal that it repaints
// with every result. Its methods may be called from any goroutine; on a nil
// Progress they do nothing.
type Progress struct {
	mu      sync.Mutex
	w       io.Writer
	columns int
	text    text // for its language
	start   time.Time
	total   time.Duration

	echoes, replies  int
	beats, answered  int
	last             string
	painted, stopped bool
}

// NewProgress returns a progress line for a run of the given length, or nil,
// which shows nothing, when f is not a terminal that can repaint a line.
func NewProgress(f *os.File, lang string, total time.Duration) *Progress {
	fd := int(f.Fd())
	columns, _, err := term.GetSize(fd)
	if err != nil || !term.IsTerminal(fd) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	if columns <= 0 {
		columns = 80 // a serial console does not say
	}
	return newProgress(f, columns, lang, total)
}

func newProgress(w io.Writer, columns int, lang string, total time.Duration) *Progress {
	return &Progress{w: w, columns: columns, text: text{Options: Options{Lang: lang}}, start: time.Now(), total: total}
}

// Observe counts one echo request.
func (p *Progress) Observe(_ string, r evidence.EchoResult) {
	p.update(func() {
		if r.Outcome == "" {
			return
		}
		p.echoes++
		if r.Outcome == evidence.EchoReply {
			p.replies++
			p.last = fmt.Sprintf("%s %s", address(r.Target), duration(r.RTT))
		}
	})
}

// ObserveIKE counts one IKE heartbeat.
func (p *Progress) ObserveIKE(_ string, r evidence.IKEResult) {
	p.update(func() {
		p.beats++
		if r.Outcome == evidence.IKEAnswered {
			p.answered++
		}
		p.last = fmt.Sprintf("IKE %d %s", r.Port, p.text.ikeOutcome(r))
	})
}

// ObserveTCP shows one TCP connection attempt.
func (p *Progress) ObserveTCP(_ string, r evidence.TCPResult) {
	p.update(func() { p.last = fmt.Sprintf("TCP %d %s", r.Target.Port(), p.text.tcp(r)) })
}

// ObservePathMTU shows one path MTU search.
func (p *Progress) ObservePathMTU(_ string, m evidence.PathMTU) {
	p.update(func() {
		if m.Packets > 0 {
			p.last = "MTU " + p.text.mtuResult(m)
		}
	})
}

// ObserveLadder shows what the peer makes of the declared IKE version, or of
// IKEv2.
func (p *Progress) ObserveLadder(_ string, l evidence.Ladder) {
	p.update(func() {
		p.last = "IKEv2 " + p.text.offers(l.V2, "")
		if !l.V2.Answers.Known() || l.V2.Answers == evidence.No && l.Main.Answers == evidence.Yes {
			p.last = "IKEv1 " + p.text.offersV1(&l)
		}
	})
}

// ObserveAuth shows how an authenticated negotiation ended.
func (p *Progress) ObserveAuth(_ string, a evidence.IKEAuth) {
	p.update(func() { p.last = p.text.auth(&a, time.Now()) })
}

// Done removes the line. Nothing is shown afterwards.
func (p *Progress) Done() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.painted {
		io.WriteString(p.w, eraseLine)
	}
	p.stopped = true
}

// eraseLine returns to the first column and erases to the end (ECMA-48 EL).
const eraseLine = "\r\x1b[K"

func (p *Progress) update(count func()) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	count()
	p.painted = true
	io.WriteString(p.w, eraseLine+p.line())
}

// line returns what to show, one column short of the terminal's width: a full
// line would scroll.
func (p *Progress) line() string {
	elapsed := min(time.Since(p.start).Truncate(time.Second), p.total)
	s := fmt.Sprintf(p.text.say("probing %s of %s   echo %d/%d   IKE %d/%d   %s", "探测中 %s / %s   回显 %d/%d   IKE %d/%d   %s"),
		elapsed, p.total, p.replies, p.echoes, p.answered, p.beats, p.last)
	var b strings.Builder
	used := 0
	for _, r := range s {
		used += columns(r)
		if used >= p.columns {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimRight(b.String(), " ")
}
