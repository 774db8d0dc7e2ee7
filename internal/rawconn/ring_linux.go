package rawconn

import (
	"encoding/binary"
	"fmt"
	"iter"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The size of a ring. A block goes to the reader when it is full or, with at
// least one frame in it, when it is blockTimeout old. So large blocks wake the
// reader less often, and blockCount times blockTimeout is how long the reader may
// be kept from its work at a low rate before frames are lost.
const (
	blockSize    = 256 << 10
	blockCount   = 16 // 4 MiB in all
	blockTimeout = 192 * time.Millisecond

	// frameSize only has to divide blockSize: in version 3 of the ring, frames
	// take the room that they need.
	frameSize = 2048
)

// RingDelay is the longest that a frame stays in a block that is not full: the
// kernel closes one that was open all through a period of its timer
// (net/packet/af_packet.c, prb_retire_rx_blk_timer_expired).
const RingDelay = 2 * blockTimeout

// Ring is a packet(7) socket whose frames arrive in memory that is shared with
// the kernel (TPACKET_V3). It does not make the device promiscuous and does not
// turn on time stamping. A slow reader loses frames, which [Ring.Drops] counts;
// it never slows the network down.
type Ring struct {
	file *os.File
	next int // the block to read next; only for Read

	mu  sync.Mutex // guards mem, so that Close cannot pull it away from Read
	mem []byte     // nil when closed
}

// RingOptions say what a [Ring] delivers.
type RingOptions struct {
	Filter []bpf.RawInstruction // frames that it accepts, and how much of them
}

// OpenRing opens a ring on a device and delivers the frames that the filter
// accepts. The filter is in place before the first frame can arrive. The error
// wraps unix.EPERM without CAP_NET_RAW, and unix.ENETDOWN when the device is
// down.
func OpenRing(dev Device, o RingOptions) (*Ring, error) {
	fd, err := openPacket(dev)
	if err != nil {
		return nil, err
	}
	mem, err := mapRing(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	err = attach(fd, o.Filter)
	if err == nil {
		err = bind(fd, dev)
	}
	if err != nil {
		unix.Munmap(mem)
		unix.Close(fd)
		return nil, err
	}
	return &Ring{file: os.NewFile(uintptr(fd), "packet ring"), mem: mem}, nil
}

func mapRing(fd int) ([]byte, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, os.NewSyscallError("setsockopt PACKET_VERSION", err)
	}
	err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq3{
		Block_size:     blockSize,
		Block_nr:       blockCount,
		Frame_size:     frameSize,
		Frame_nr:       blockSize / frameSize * blockCount,
		Retire_blk_tov: uint32(blockTimeout.Milliseconds()),
	})
	if err != nil {
		return nil, fmt.Errorf("packet ring of %d bytes: %w", blockSize*blockCount, err)
	}
	mem, err := unix.Mmap(fd, 0, blockSize*blockCount, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return mem, nil
}

// SetFilter replaces the filter in one step: every frame passes either the old
// or the new one.
func (r *Ring) SetFilter(filter []bpf.RawInstruction) error {
	return r.control(func(fd int) error { return attach(fd, filter) })
}

// Drops returns how many accepted frames found the ring full since the last
// call: the kernel counts from zero again after every reading.
func (r *Ring) Drops() (uint64, error) {
	var drops uint64
	err := r.control(func(fd int) error {
		stats, err := unix.GetsockoptTpacketStatsV3(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			return os.NewSyscallError("getsockopt PACKET_STATISTICS", err)
		}
		drops = uint64(stats.Drops)
		return nil
	})
	return drops, err
}

// SetReadDeadline makes Read return os.ErrDeadlineExceeded from t on; the zero
// time takes it back.
func (r *Ring) SetReadDeadline(t time.Time) error { return r.file.SetReadDeadline(t) }

// Close ends a Read under way and releases the ring. It must not be called
// from within Read's function.
func (r *Ring) Close() error {
	err := r.file.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem != nil {
		unix.Munmap(r.mem)
		r.mem = nil
	}
	return err
}

// Read waits for the next block and hands its frames to f, which must read
// them before it returns. It may not be called by two goroutines at once. The
// error is unix.ENETDOWN when the device went down or away.
func (r *Ring) Read(f func(iter.Seq[Frame])) error {
	conn, err := r.file.SyscallConn()
	if err != nil {
		return err
	}
	var pending error
	err = conn.Read(func(fd uintptr) bool {
		if r.readBlock(f) {
			return true
		}
		pending = pendingError(int(fd))
		return pending != nil
	})
	if pending != nil {
		return pending
	}
	if err != nil {
		// An error that arrives while we wait ends the wait with one of the
		// poller's own; the kernel still has the reason.
		if reason := r.control(pendingError); reason != nil {
			return reason
		}
	}
	return err
}

// readBlock reads the next block if the kernel is done with it.
func (r *Ring) readBlock(f func(iter.Seq[Frame])) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem == nil {
		return true // closed: let the poller say so
	}
	b := block(r.mem[r.next*blockSize:][:blockSize])
	if b.status().Load()&unix.TP_STATUS_USER == 0 {
		return false
	}
	f(b.frames)
	b.status().Store(unix.TP_STATUS_KERNEL)
	r.next = (r.next + 1) % blockCount
	return true
}

func (r *Ring) control(f func(fd int) error) error {
	conn, err := r.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// block is one block of a ring: a struct tpacket_block_desc, then frames.
type block []byte

// descriptor is where the descriptor of a block holds its tpacket_hdr_v1.
const descriptor = int(unsafe.Offsetof(unix.TpacketBlockDesc{}.Hdr))

// status is the word by which kernel and reader hand the block to each other.
// Its atomic load and store order all other accesses to the block.
func (b block) status() *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&b[descriptor]))
}

// frames yields the frames of a block that belongs to the reader.
func (b block) frames(yield func(Frame) bool) {
	h := b[descriptor:]
	count := binary.NativeEndian.Uint32(h[unsafe.Offsetof(unix.TpacketHdrV1{}.Num_pkts):])
	off := int(binary.NativeEndian.Uint32(h[unsafe.Offsetof(unix.TpacketHdrV1{}.Offset_to_first_pkt):]))
	for range count {
		// The address after the header tells the direction.
		if off < 0 || off+unix.SizeofTpacket3Hdr+unix.SizeofSockaddrLinklayer > len(b) {
			return
		}
		h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[off]))
		sll := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&b[off+unix.SizeofTpacket3Hdr]))
		begin := off + int(h.Mac)
		end := begin + int(h.Snaplen)
		if begin > end || end > len(b) {
			return
		}
		f := Frame{
			Data:     b[begin:end:end],
			WireLen:  int(h.Len),
			Outgoing: sll.Pkttype == unix.PACKET_OUTGOING,
			Time:     time.Unix(int64(h.Sec), int64(h.Nsec)),
		}
		if !yield(f) || h.Next_offset == 0 {
			return
		}
		off += int(h.Next_offset)
	}
}
