package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

const chain = "KUBE-NETWORK-POLICIES"

// Where a packet leaves the node or goes from one pod to another, and where it reaches the node itself. Services'
// addresses have been replaced by those of pods there, and none have been replaced by the node's.
var hooks = []string{"POSTROUTING", "INPUT"}

// rules hand the first packet of every connection from or to a pod to a queue. Nothing in them lets it pass if nobody
// reads the queue. What the node itself sends is not judged, as NetworkPolicies want it.
type rules struct {
	pods  netip.Prefix
	queue int
}

// lines are the rules of the chain, in the words in which iptables lists them.
func (r rules) lines() []string {
	judge := fmt.Sprintf("-j NFQUEUE --queue-num %d", r.queue)
	return []string{
		fmt.Sprintf("-A %s -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", chain),
		fmt.Sprintf("-A %s -m addrtype --src-type LOCAL -j RETURN", chain),
		fmt.Sprintf("-A %s -s %s %s", chain, r.pods.Masked(), judge),
		fmt.Sprintf("-A %s -d %s %s", chain, r.pods.Masked(), judge),
	}
}

// write makes the chain anew in one step, and has both hooks lead to it.
func (r rules) write(ctx context.Context) error {
	text := fmt.Sprintf("*mangle\n:%s - [0:0]\n%s\nCOMMIT\n", chain, strings.Join(r.lines(), "\n"))
	if _, err := iptables(ctx, text, "iptables-restore", "--wait", "10", "--noflush"); err != nil {
		return fmt.Errorf(
			"no NetworkPolicy can be enforced on this node: its kernel does not take the rules, which need "+
				"CONFIG_NETFILTER_XT_TARGET_NFQUEUE, _XT_MATCH_ADDRTYPE and _XT_MATCH_CONNTRACK: %w", err)
	}
	for _, hook := range hooks {
		jump := []string{"iptables", "--wait", "10", "--table", "mangle", "--check", hook, "--jump", chain}
		if _, err := iptables(ctx, "", jump...); err == nil {
			continue
		}
		jump[5] = "--insert"
		if _, err := iptables(ctx, "", jump...); err != nil {
			return fmt.Errorf("no NetworkPolicy can be enforced on this node: %w", err)
		}
	}
	return nil
}

// missing are the rules that are not in the kernel, or not in their place.
func (r rules) missing(ctx context.Context) ([]string, error) {
	listed, err := iptables(ctx, "", "iptables", "--wait", "10", "--table", "mangle", "--list-rules")
	if err != nil {
		return nil, err
	}
	found := strings.Split(listed, "\n")
	ours := make([]string, 0, len(found))
	present := map[string]bool{}
	for _, line := range found {
		present[line] = true
		if strings.HasPrefix(line, "-A "+chain+" ") {
			ours = append(ours, line)
		}
	}
	var missing []string
	for _, hook := range hooks {
		if jump := fmt.Sprintf("-A %s -j %s", hook, chain); !present[jump] {
			missing = append(missing, jump)
		}
	}
	wanted := r.lines()
	if strings.Join(ours, "\n") != strings.Join(wanted, "\n") {
		missing = append(missing, fmt.Sprintf("%d rules of %s as they were written", len(wanted), chain))
	}
	return missing, nil
}

// keep writes the rules again whenever somebody took them away.
func (r rules) keep(ctx context.Context) error {
	ticker := time.NewTicker(upkeep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		missing, err := r.missing(ctx)
		if err == nil && len(missing) > 0 {
			err = r.write(ctx)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func iptables(ctx context.Context, stdin string, command ...string) (string, error) {
	process := exec.CommandContext(ctx, command[0], command[1:]...)
	process.Stdin = strings.NewReader(stdin)
	var output, said bytes.Buffer
	process.Stdout, process.Stderr = &output, &said
	if err := process.Run(); err != nil {
		return "", fmt.Errorf("`%s`: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(said.String()))
	}
	return output.String(), nil
}
