//go:build linux

package integration

import (
	"testing"

	"vpnprobe/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
