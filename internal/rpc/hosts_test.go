package rpc

import "testing"

func TestHosts_OtherNamesAreNotThisMachine(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"": true, "localhost": true, "LocalHost:8081": true, "localhost.": true, "a.localhost:80": true,
		"127.0.0.1": true, "127.0.0.1:8081": true,
		"[::1]:8081": true, "[::1]": true, "::1": true, "[fe80::1%eth0]:1": true, "192.168.0.7:8081": true, "box": true,
		"BOX:8081":           true,
		"rebind.example.com": false, "rebind.example.com:8081": false, "localhost.example.com": false,
		"notlocalhost":             false,
		"127.0.0.1.example.com:80": false, "127.0.0.1.nip.io": false, "box.example.com": false,
		"localhost:8081:1": false, "0x7f000001": false,
	} {
		if got := isLocalHost(host, "box"); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}
