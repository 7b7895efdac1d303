// Enforces NetworkPolicies on the pods of this node with the engine of kube-network-policies.
//
// The engine's own program wants to run in a pod and writes rules that not every kernel takes; where one does not, it
// enforces nothing. This one runs as a daemon of the node, with rules that every kernel with NFQUEUE takes, and it is
// healthy only while they hold. They stay when it ends: without it, no pod makes a new connection.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

const (
	queue  = 100
	upkeep = 10 * time.Second
	grace  = 5 * time.Second
)

// The engine also writes rules of its own, into a table of this name. Their `queue` statement is what not every kernel
// has, and they would judge each packet once more and the node's own users as if they were strangers. No kernel takes
// a name as long as this, so all kernels behave in one way.
var noTable = strings.Repeat("none", 100)

// How the kernel's answer to that begins.
const refused = "conn.Receive: netlink receive: numerical result out of range"

func main() {
	kubeconfig := flag.String("kubeconfig", "", "file that says how the API server is reached")
	node := flag.String("node", "", "name of this node")
	pods := flag.String("pods", "", "network of all pods, e.g. 10.244.0.0/16")
	health := flag.String("health-address", "127.0.0.1:20244", "where /healthz answers")
	flag.Parse()
	klog.SetSlogLogger(slog.New(withoutTable{slog.NewTextHandler(os.Stderr, nil)}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig, *node, *pods, *health); err != nil {
		fmt.Fprintf(os.Stderr, "kube-network-policies: %v\n", err)
		os.Exit(1)
	}
}

// run enforces until ctx is done. Whatever keeps it from that is an error.
func run(ctx context.Context, kubeconfig, node, pods, health string) error {
	if node == "" {
		return errors.New("--node is missing: the name of this node in the cluster")
	}
	network, err := netip.ParsePrefix(pods)
	if err != nil || !network.Addr().Is4() {
		return fmt.Errorf("--pods %q is no IPv4 network such as 10.244.0.0/16", pods)
	}
	rules := rules{pods: network, queue: queue}
	if err := rules.write(ctx); err != nil { // first of all, so that no pod is open before
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	objects := informers.NewSharedInformerFactory(client, 0)
	policies := objects.Networking().V1().NetworkPolicies()
	namespaces, all := objects.Core().V1().Namespaces(), objects.Core().V1().Pods()
	engine, err := networkpolicy.NewController(
		client, policies, namespaces, all, nil, nil, nil, nil,
		networkpolicy.Config{NodeName: node, QueueID: queue, NFTableName: noTable},
	)
	if err != nil {
		return err
	}
	known := map[string]cache.InformerSynced{
		"NetworkPolicies": policies.Informer().HasSynced,
		"namespaces":      namespaces.Informer().HasSynced,
		"pods":            all.Informer().HasSynced,
	}
	objects.Start(ctx.Done())
	ended := make(chan error, 3)
	go func() { ended <- orEarly(ctx, engine.Run(ctx)) }()
	go func() { ended <- rules.keep(ctx) }()
	go func() { ended <- serve(ctx, health, checks{rules, known}) }()
	err = <-ended
	if ctx.Err() == nil {
		return err
	}
	for range 2 { // it is to end, and so do the others
		select {
		case <-ended:
		case <-time.After(grace):
		}
	}
	return nil
}

// orEarly is the engine's error, and an error as well if it returns without one before it is told to.
func orEarly(ctx context.Context, err error) error {
	if err == nil && ctx.Err() == nil {
		return errors.New("the engine ended by itself")
	}
	if err != nil {
		return fmt.Errorf("the engine does not judge packets: %w", err)
	}
	return nil
}

func serve(ctx context.Context, address string, checks checks) error {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", checks)
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// withoutTable drops what the engine says about the table that it cannot have.
type withoutTable struct{ slog.Handler }

func (h withoutTable) Handle(ctx context.Context, record slog.Record) error {
	about := false
	switch record.Message {
	case "Syncing nftables rules", "syncing nftables rules", "syncing", "Dropping out of the queue":
		about = true
	case "Unhandled Error":
		record.Attrs(func(attribute slog.Attr) bool {
			about = attribute.Key == "err" && strings.HasPrefix(attribute.Value.String(), refused)
			return !about
		})
	}
	if about {
		return nil
	}
	return h.Handler.Handle(ctx, record)
}

func (h withoutTable) WithAttrs(attrs []slog.Attr) slog.Handler {
	return withoutTable{h.Handler.WithAttrs(attrs)}
}

func (h withoutTable) WithGroup(name string) slog.Handler {
	return withoutTable{h.Handler.WithGroup(name)}
}
