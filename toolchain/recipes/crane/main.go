// Crane, with one rule of its own: nothing but a registry on this machine is spoken to without TLS.
//
// Crane by itself falls back to HTTP where an address is private, which whoever sits on the way can bring about, and
// then gets the password.
package main

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/google/go-containerregistry/cmd/crane/cmd"
	"github.com/google/go-containerregistry/pkg/logs"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func main() {
	logs.Warn.SetOutput(os.Stderr)
	logs.Progress.SetOutput(os.Stderr)
	if transport, ok := remote.DefaultTransport.(*http.Transport); ok {
		transport.Proxy = overTLS(transport.Proxy)
	} else {
		panic("remote.DefaultTransport is no *http.Transport: its use of TLS cannot be guarded")
	}
	if cmd.New("crane", "Push images to a registry", nil).Execute() != nil {
		os.Exit(1)
	}
}

type proxyOf func(*http.Request) (*url.URL, error)

// overTLS refuses requests in clear to other machines; the choice of a proxy is asked for before every request.
func overTLS(proxy proxyOf) proxyOf {
	return func(request *http.Request) (*url.URL, error) {
		if request.URL.Scheme != "https" && !here(request.URL.Hostname()) {
			return nil, fmt.Errorf("%s does not answer by TLS, and is not spoken to without", request.URL.Host)
		}
		return proxy(request)
	}
}

func here(host string) bool {
	address := net.ParseIP(host)
	return host == "localhost" || address.IsLoopback()
}
