package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// RecordConfig says how to record.
type RecordConfig struct {
	Path string // must not exist yet
	// MaxSize bounds the file, in bytes; at least [MinRecording].
	MaxSize int64
	App     string // what records, such as "vpnprobe 1.0"
}

// MinRecording is the smallest bound of a recording that makes sense, in bytes.
const MinRecording = 64 << 10

// Recorder writes the frames that it is shown to a pcapng file, cut so that no
// payload of the tunnel is in it: of ESP and AH the headers, of packets in clear
// IP and transport headers, but IKE whole. Its methods may be called at the same
// time.
type Recorder struct {
	mu       sync.Mutex
	cfg      RecordConfig
	file     *os.File
	write    func([]byte) (int, error) // the file's
	cut      cutter
	buf      []byte // whole blocks that are not in the file yet
	size     int64  // of the file and buf
	devices  []recordDevice
	first    time.Time
	last     time.Time
	kept     time.Time // of the last frame that is in the file for sure
	flushed  time.Time // of the frame at which buf was last written
	frames   uint64
	full     bool
	err      error // why writing ended
	finished bool
}

// recordDevice is an interface of the recording.
type recordDevice struct {
	name   string
	link   LinkType
	frames uint64
}

// Recorded is what became of a recording.
type Recorded struct {
	Frames uint64
	Bytes  int64
	// Full is true when the bound was reached, so that later frames are
	// missing; Until is the time of the last frame that is there, or of one
	// shortly before if Err is set.
	Full  bool
	Until time.Time
	// Err is why not all could be written, such as a full disk. What is in the
	// file is whole.
	Err error
}

// notFinished is the comment of a recording until it gets its own. Whoever sees
// it later sees that there is none.
const notFinished = "This recording was not finished: the recorder was killed."

const (
	recordBuffer  = 64 << 10
	recordFlush   = time.Second // how old unwritten frames may be
	recordDevices = 64
	// recordEnd is kept free for the statistics of all interfaces.
	recordEnd = 112 * recordDevices
)

// NewRecorder creates the file, which only its owner may read. It is a valid
// capture at any time from then on, but for the last block when the process is
// killed.
func NewRecorder(cfg RecordConfig) (*Recorder, error) {
	if cfg.MaxSize < MinRecording {
		return nil, fmt.Errorf("recording of at most %d bytes: want at least %d", cfg.MaxSize, MinRecording)
	}
	f, err := os.OpenFile(cfg.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%s exists: name a new file, or move that one away", cfg.Path)
	}
	if err != nil {
		return nil, err
	}
	head := appendHead(nil, cfg.App, notFinished)
	if _, err := f.Write(head); err != nil {
		f.Close()
		os.Remove(cfg.Path)
		return nil, err
	}
	return &Recorder{cfg: cfg, file: f, write: f.Write, size: int64(len(head))}, nil
}

// Frame records one frame, unless the recording is full, broken or finished.
func (r *Recorder) Frame(f Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full || r.err != nil || r.finished {
		return
	}
	n := r.cut.keep(f)
	if n == 0 {
		return
	}
	h, _ := f.Link.strip(f.Data)
	before := len(r.buf)
	device, ok := r.device(f)
	if ok {
		r.buf = appendPacket(r.buf, device, f, f.Outgoing || h.outgoing, n)
	}
	added := int64(len(r.buf) - before)
	if !ok || r.size+added > r.cfg.MaxSize-recordEnd {
		r.full = true
		r.buf = r.buf[:before]
		if device == len(r.devices)-1 && r.devices[device].frames == 0 {
			r.devices = r.devices[:device] // its description was taken back
		}
		return
	}
	r.size += added
	r.devices[device].frames++
	if r.frames == 0 {
		r.first, r.flushed = f.Time, f.Time
	}
	r.frames++
	r.last = f.Time
	if len(r.buf) >= recordBuffer || f.Time.Sub(r.flushed).Abs() >= recordFlush {
		r.flushed = f.Time
		r.flush()
	}
}

// device returns the number of the frame's interface, which it describes if it
// is new.
func (r *Recorder) device(f Frame) (int, bool) {
	for i, d := range r.devices {
		if d.name == f.Interface && d.link == f.Link {
			return i, true
		}
	}
	if len(r.devices) == recordDevices {
		return 0, false
	}
	r.devices = append(r.devices, recordDevice{name: f.Interface, link: f.Link})
	r.buf = appendInterface(r.buf, f.Link, f.Interface)
	return len(r.devices) - 1, true
}

// flush writes the buffer. If not all of it can be written, the file is cut
// after the last whole block.
func (r *Recorder) flush() {
	n, err := r.write(r.buf)
	if err != nil {
		r.err = err
		r.forget(r.buf[wholeBlocks(r.buf[:n]):])
		if err := r.file.Truncate(r.size); err != nil {
			r.err = errors.Join(r.err, err)
		}
	} else if r.frames > 0 {
		r.kept = r.last
	}
	r.buf = r.buf[:0]
}

// forget takes back the blocks that could not be written.
func (r *Recorder) forget(lost []byte) {
	r.size -= int64(len(lost))
	for len(lost) >= 12 {
		size := binary.LittleEndian.Uint32(lost[4:])
		if binary.LittleEndian.Uint32(lost) == ngEnhanced {
			r.frames--
		}
		lost = lost[size:]
	}
	r.last = r.kept
}

// wholeBlocks returns the length of the blocks that are whole.
func wholeBlocks(b []byte) int {
	n := 0
	for len(b)-n >= 8 {
		size := int(binary.LittleEndian.Uint32(b[n+4:]))
		if size > len(b)-n {
			break
		}
		n += size
	}
	return n
}

// Finish writes the comment into the section header, where Wireshark shows it
// among the properties of the file, adds how many packets the capture dropped,
// and closes the file. comment is told what became of the recording so far. A
// second call changes nothing.
func (r *Recorder) Finish(comment func(Recorded) string, dropped uint64) Recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return r.recorded()
	}
	r.finished = true
	if r.err == nil {
		before := len(r.buf)
		for i, d := range r.devices {
			if i > 0 {
				dropped = 0 // on which interface is not known; readers add them up
			}
			r.buf = appendStatistics(r.buf, i, r.first, r.last, d.frames, dropped)
		}
		r.size += int64(len(r.buf) - before)
		r.flush()
	}
	head := appendHead(nil, r.cfg.App, comment(r.recorded()))
	_, err := r.file.WriteAt(head, 0)
	r.err = errors.Join(r.err, err, r.file.Sync(), r.file.Close())
	return r.recorded()
}

func (r *Recorder) recorded() Recorded {
	return Recorded{Frames: r.frames, Bytes: r.size, Full: r.full, Until: r.last, Err: r.err}
}

// Path returns the path of the file.
func (r *Recorder) Path() string { return r.cfg.Path }
