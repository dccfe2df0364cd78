package benches

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// While another goroutine makes and cancels children.
func readBusy(b *testing.B) {
	ctx, stop := root()
	defer stop()
	var done atomic.Bool
	var busy, ended sync.WaitGroup
	busy.Add(1)
	ended.Add(1)
	go func() {
		defer ended.Done()
		for i := 0; !done.Load(); i++ {
			_, cancel := context.WithCancel(ctx)
			cancel()
			if i == 0 {
				busy.Done()
			}
		}
	}()
	busy.Wait()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		if ctx.Err() != nil {
			b.Fatal("too early")
		}
	}
	b.StopTimer()
	done.Store(true)
	ended.Wait()
}

// The time of one goroutine for one child while another does the same, as for ours: RunParallel would
// give half of it.
func createDropTwoThreads(b *testing.B) {
	ctx, stop := root()
	defer stop()
	var arrived atomic.Int32
	work := func() {
		// A barrier that spins, so that both start at once.
		for arrived.Add(1); arrived.Load() < 2; {
		}
		for i := 0; i < b.N; i++ {
			_, cancel := context.WithCancel(ctx)
			cancel()
		}
	}
	var ended sync.WaitGroup
	ended.Add(1)
	go func() {
		defer ended.Done()
		work()
	}()
	work()
	ended.Wait()
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
