package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"k8s.io/client-go/tools/cache"
)

const queues = "/proc/net/netfilter/nfnetlink_queue"

// checks say whether NetworkPolicies are enforced on this node: the rules are there, their queue is read, and what
// the reader decides by is known.
type checks struct {
	rules rules
	known map[string]cache.InformerSynced
}

func (c checks) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	reasons := c.failed(request)
	if len(reasons) == 0 {
		fmt.Fprintln(answer, "ok")
		return
	}
	http.Error(answer, "NetworkPolicies are not enforced on this node: "+strings.Join(reasons, "; "),
		http.StatusServiceUnavailable)
}

func (c checks) failed(request *http.Request) []string {
	var reasons []string
	missing, err := c.rules.missing(request.Context())
	if err != nil {
		reasons = append(reasons, err.Error())
	}
	for _, rule := range missing {
		reasons = append(reasons, fmt.Sprintf("iptables lacks `%s`", rule))
	}
	if !isRead(c.rules.queue) {
		reasons = append(reasons, fmt.Sprintf("nobody reads queue %d (%s)", c.rules.queue, queues))
	}
	for kind, known := range c.known {
		if !known() {
			reasons = append(reasons, fmt.Sprintf("the API server has not listed all %s yet", kind))
		}
	}
	return reasons
}

// isRead tells whether a program reads this queue; the kernel lists no others.
func isRead(queue int) bool {
	listed, err := os.ReadFile(queues)
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(listed), "\n") {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == strconv.Itoa(queue) {
			return true
		}
	}
	return false
}
