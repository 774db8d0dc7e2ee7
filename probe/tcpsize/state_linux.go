package tcpsize

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// tcpiOptTimestamps is TCPI_OPT_TIMESTAMPS (linux/tcp.h), which package unix
// lacks.
const tcpiOptTimestamps = 1

// state asks the kernel for TCP_INFO.
func (c *connection) state() (state, error) {
	var info *unix.TCPInfo
	var err error
	var missing bool
	if e := c.raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		missing = gap(int(fd))
	}); e != nil {
		return state{}, e
	}
	if err != nil {
		return state{}, os.NewSyscallError("getsockopt TCP_INFO", err)
	}
	return state{
		timestamps: info.Options&tcpiOptTimestamps != 0,
		sendMSS:    int(info.Snd_mss),
		receiveMSS: int(info.Rcv_mss),
		advMSS:     int(info.Advmss),
		pathMTU:    int(info.Pmtu),
		acked:      info.Bytes_acked,
		received:   info.Bytes_received,
		segments:   info.Data_segs_in,
		gap:        missing,
		passed:     int(info.Delivered),
		repeated:   int(info.Total_retrans),
		rtt:        time.Duration(info.Rtt) * time.Microsecond,

		bytesRepeated: info.Bytes_retrans,
	}, nil
}

// gap reports whether the kernel holds data of a connection of which none can
// be read. The memory, the first value of SO_MEMINFO, is asked for first: what
// comes between the two questions can hide a gap and never feign one. A kernel
// that does not tell (before 4.12) shows none.
func gap(fd int) bool {
	held, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MEMINFO)
	if err != nil || held == 0 {
		return false
	}
	readable, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return err == nil && readable == 0
}

// announced returns the MSS that the target announced.
func (c *connection) announced(s state) evidence.Opt[int] {
	if _, ok := c.synMSS.Get(); ok {
		return c.synMSS
	}
	return s.peerMSS(c.v6)
}
