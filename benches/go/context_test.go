// Go's context at the workloads of benches/tree, by the same names. `cargo bench --bench tree` runs what it has
// measured itself, where there is a `go`; run.sh does that for all of them, and puts both side by side.
//
// To drop a token is to call `cancel` here, as nothing else removes a child from its parent. What has no counterpart
// here is listed in benches/tree/go.rs, each with the reason.
package benches

import (
	"context"
	"testing"
	"time"
)

type workload struct {
	name string
	run  func(*testing.B)
}

func each(b *testing.B, workloads []workload) {
	for _, it := range workloads {
		b.Run(it.name, it.run)
	}
}

// BenchmarkOne is for `-cpu 1`: what the garbage collector does meanwhile is part of the price.
func BenchmarkOne(b *testing.B) {
	each(b, []workload{
		{"read", read},
		{"read_select", readSelect},
		{"read_deep", readDeep},
		{"create_drop", createDrop},
		{"create_drop_among_100k", createDropAmong100k},
		{"create_cancel_drop", createDrop},
		{"request", request},
		{"select_anew", selectLoop},
		{"wake", func(b *testing.B) { pingPong(b, goroutines) }},

		{"ctx_cancel_drop", createDrop},
		{"ctx_timeout_drop", timeoutDrop},
		{"ctx_timeout_done_drop", timeoutDoneDrop},
		{"ctx_timeout_drop_among_100k", timeoutDropAmong100k},
		{"ctx_err", errWithDeadline},
		{"ctx_value", value},
		{"ctx_value_miss", valueMiss},
		{"ctx_with_value", withValue},

		{"task", task},
		{"task_on_tokio", taskInGroup},
	})
}

// BenchmarkTwo is for `-cpu 2`.
func BenchmarkTwo(b *testing.B) {
	each(b, []workload{
		{"read_busy", readBusy},
		{"read_beside_waits", readBesideWaits},
		{"create_drop_two_threads", createDropTwoThreads},
		{"create_drop_beside_cancels", createDropBesideCancels},
		{"cancel_beside_reads", cancelBesideReads},
		{"task_two_threads", taskTwoThreads},
		{"wake_across", func(b *testing.B) { pingPong(b, threads) }},
	})
}

// BenchmarkMillion is for `-benchtime 1x`: each tree serves once.
func BenchmarkMillion(b *testing.B) {
	each(b, []workload{
		{"cancel_wide", func(b *testing.B) { cancel(b, wide) }},
		{"cancel_churned", func(b *testing.B) { cancel(b, churned) }},
		{"cancel_chain", func(b *testing.B) { cancel(b, chain) }},
		{"cancel_ten_ary", func(b *testing.B) { cancel(b, tenAry) }},
		{"build_cold", buildCold},
		{"drop_children", dropChildren},
		{"join_100k", join100k},
	})
}

// The limit of a request.
const limit = 30 * time.Second

// What is live is used, or the compiler might leave it out.
var sink context.Context

func root() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}

func read(b *testing.B) {
	ctx, stop := root()
	defer stop()
	for i := 0; i < b.N; i++ {
		if ctx.Err() != nil {
			b.Fatal("too early")
		}
	}
}

// The other way to ask.
func readSelect(b *testing.B) {
	ctx, stop := root()
	defer stop()
	for i := 0; i < b.N; i++ {
		select {
		case <-ctx.Done():
			b.Fatal("too early")
		default:
		}
	}
}

func readDeep(b *testing.B) {
	ctx, stop := root()
	defer stop()
	for i := 0; i < 100; i++ {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
	}
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		if ctx.Err() != nil {
			b.Fatal("too early")
		}
	}
}

func createDrop(b *testing.B) {
	ctx, stop := root()
	defer stop()
	for i := 0; i < b.N; i++ {
		_, cancel := context.WithCancel(ctx)
		cancel()
	}
}

func createDropAmong100k(b *testing.B) {
	ctx, stop := root()
	defer stop()
	for i := 0; i < 100_000; i++ {
		_, cancel := context.WithCancel(ctx)
		defer cancel()
	}
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		_, cancel := context.WithCancel(ctx)
		cancel()
	}
	b.StopTimer()
}

func request(b *testing.B) {
	server, stop := root()
	defer stop()
	for i := 0; i < b.N; i++ {
		request, cancel := context.WithCancel(server)
		_, one := context.WithCancel(request)
		_, two := context.WithCancel(request)
		_, three := context.WithCancel(request)
		cancel()
		// As a task does when it ends, and `go vet` wants it.
		one()
		two()
		three()
	}
}

// Turns of a loop that waits for work and for the end, and has work.
func selectLoop(b *testing.B) {
	ctx, stop := root()
	defer stop()
	work := make(chan struct{}, 1)
	for i := 0; i < b.N; i++ {
		work <- struct{}{}
		select {
		case <-ctx.Done():
			b.Fatal("too early")
		case <-work:
		}
	}
}

func timeoutDrop(b *testing.B) {
	ctx, stop := root()
	defer stop()
	for i := 0; i < b.N; i++ {
		_, cancel := context.WithTimeout(ctx, limit)
		cancel()
	}
}

func timeoutDropAmong100k(b *testing.B) {
	ctx, stop := root()
	defer stop()
	for i := 0; i < 100_000; i++ {
		_, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
	}
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		_, cancel := context.WithTimeout(ctx, limit)
		cancel()
	}
	b.StopTimer()
}

func timeoutDoneDrop(b *testing.B) {
	ctx, stop := root()
	defer stop()
	for i := 0; i < b.N; i++ {
		child, cancel := context.WithTimeout(ctx, limit)
		select {
		case <-child.Done():
			b.Fatal("too early")
		default:
		}
		cancel()
	}
}

// One that is not reached.
func withDeadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 10*limit)
}

func errWithDeadline(b *testing.B) {
	ctx, stop := withDeadline()
	defer stop()
	for i := 0; i < b.N; i++ {
		if ctx.Err() != nil {
			b.Fatal("too early")
		}
	}
}

type key struct{ n int }

// The first layer is the one that is looked for.
func depth100(ctx context.Context) context.Context {
	for i := 0; i <= 100; i++ {
		ctx = context.WithValue(ctx, key{i}, i)
	}
	return ctx
}

func value(b *testing.B) {
	ctx, stop := withDeadline()
	defer stop()
	ctx = depth100(ctx)
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		if ctx.Value(key{0}) == nil {
			b.Fatal("not found")
		}
	}
}

func valueMiss(b *testing.B) {
	ctx, stop := withDeadline()
	defer stop()
	ctx = depth100(ctx)
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		if ctx.Value(key{-1}) != nil {
			b.Fatal("found")
		}
	}
}

func withValue(b *testing.B) {
	ctx, stop := withDeadline()
	defer stop()
	for i := 0; i < b.N; i++ {
		sink = context.WithValue(ctx, key{0}, i)
	}
}
