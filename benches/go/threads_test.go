package benches

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Measures while another goroutine does `op` over and over.
func beside(b *testing.B, op, measure func()) {
	var stop atomic.Bool
	var busy, ended sync.WaitGroup
	busy.Add(1)
	ended.Add(1)
	go func() {
		defer ended.Done()
		op()
		busy.Done()
		for !stop.Load() {
			op()
		}
	}()
	busy.Wait()
	b.ResetTimer()
	measure()
	b.StopTimer()
	stop.Store(true)
	ended.Wait()
}

func makeAndCancel(parent context.Context) {
	_, cancel := context.WithCancel(parent)
	cancel()
}

func readBeside(b *testing.B, op func(context.Context)) {
	ctx, stop := root()
	defer stop()
	beside(b, func() { op(ctx) }, func() {
		for i := 0; i < b.N; i++ {
			if ctx.Err() != nil {
				b.Fatal("too early")
			}
		}
	})
}

func readBusy(b *testing.B) {
	readBeside(b, makeAndCancel)
}

// Beside a loop that waits for its end and for work, which is there. Ours is polled and dropped instead, and is
// registered in between; a select that has something to do locks the channels, and leaves nothing.
func readBesideWaits(b *testing.B) {
	work := make(chan struct{}, 1)
	readBeside(b, func(ctx context.Context) {
		work <- struct{}{}
		select {
		case <-ctx.Done():
			panic("too early")
		case <-work:
		}
	})
}

// The same as two at once, but that here one of them is measured and the other never ends first.
func createDropBesideCancels(b *testing.B) {
	ctx, stop := root()
	defer stop()
	beside(b, func() { makeAndCancel(ctx) }, func() {
		for i := 0; i < b.N; i++ {
			_, cancel := context.WithCancel(ctx)
			cancel()
		}
	})
}

// The time of one goroutine for one child while another does the same.
func createDropTwoThreads(b *testing.B) {
	ctx, stop := root()
	defer stop()
	twoAtOnce(b, func() {
		_, cancel := context.WithCancel(ctx)
		cancel()
	})
}

// As the mean of the two: RunParallel would give half of it.
func twoAtOnce(b *testing.B, run func()) {
	var arrived atomic.Int32
	work := func() time.Duration {
		// A barrier that spins, so that both start at once.
		for arrived.Add(1); arrived.Load() < 2; {
		}
		start := time.Now()
		for i := 0; i < b.N; i++ {
			run()
		}
		return time.Since(start)
	}
	other := make(chan time.Duration)
	go func() { other <- work() }()
	mine := work()
	reportMean(b, mine+<-other, 2*b.N)
}

// In place of the time that the benchmark takes as a whole.
func reportMean(b *testing.B, sum time.Duration, n int) {
	b.ReportMetric(float64(sum.Nanoseconds())/float64(n), "ns/op")
}

// A token with ten children, and a hundred less one below each of those.
type thousand struct {
	top   node
	below []node
}

func newThousand(parent node) *thousand {
	t := &thousand{parent.child(), make([]node, 0, 1000)}
	for i := 0; i < 10; i++ {
		child := t.top.child()
		for j := 0; j < 99; j++ {
			t.below = append(t.below, child.child())
		}
		t.below = append(t.below, child)
	}
	return t
}

// While another goroutine reads the flags of all that are cancelled. Only the cancel is timed, by the clock: the
// benchmark's own timer stops the world.
func cancelBesideReads(b *testing.B) {
	root := node{context.Background(), nil}.child()
	defer root.cancel()
	var now atomic.Pointer[thousand]
	now.Store(newThousand(root))
	// How often the other has begun at the first of them.
	var passes atomic.Int64
	read := func() {
		tokens := now.Load()
		passes.Add(1)
		for _, it := range tokens.below {
			_ = it.ctx.Err()
		}
	}

	var sum time.Duration
	beside(b, read, func() {
		for i := 0; i < b.N; i++ {
			tokens := newThousand(root)
			now.Store(tokens)
			// The first that begins from here on may still have taken the former ones.
			for before := passes.Load(); passes.Load() < before+2; {
			}
			start := time.Now()
			tokens.top.cancel()
			sum += time.Since(start)
		}
	})
	reportMean(b, sum, b.N)
}

const (
	// What Go programs do: whoever is woken may run on the same thread.
	goroutines = iota
	// Each side has a thread of its own, and it is a parked thread that is woken.
	threads
)

// From `cancel()` in one goroutine to the end of `<-Done()` in another, and the other way round: an iteration is
// one wake-up, half of an exchange.
func pingPong(b *testing.B, sides int) {
	ctx, stop := root()
	defer stop()
	rounds := b.N/2 + 1
	type end struct {
		done   <-chan struct{}
		cancel context.CancelFunc
	}
	ends := func() []end {
		ends := make([]end, rounds)
		for i := range ends {
			ctx, cancel := context.WithCancel(ctx)
			ends[i] = end{ctx.Done(), cancel}
		}
		return ends
	}
	ping, pong := ends(), ends()
	own := func() {
		if sides == threads {
			runtime.LockOSThread()
		}
	}
	// A goroutine that ends with its thread locked ends the thread as well.
	var ended sync.WaitGroup
	ended.Add(2)
	go func() {
		defer ended.Done()
		own()
		for i := range pong {
			<-pong[i].done
			ping[i].cancel()
		}
	}()
	go func() {
		defer ended.Done()
		own()
		for i := range ping {
			// The first exchange is ahead, until when the other has started.
			if i == 1 {
				b.ResetTimer()
			}
			pong[i].cancel()
			<-ping[i].done
		}
		b.StopTimer()
	}()
	ended.Wait()
}
