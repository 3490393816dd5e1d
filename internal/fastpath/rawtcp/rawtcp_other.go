//go:build !linux || race

package rawtcp

import "net"

func wrap(tcp *net.TCPConn) net.Conn { return tcp }
