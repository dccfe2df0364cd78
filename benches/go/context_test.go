// What Go's context takes for the operations that benches/context.rs measures. Run by `cargo bench` where
// there is a `go`, or by itself: go test -bench . -cpu 1
package benches

import (
	"context"
	"testing"
	"time"
)

type key struct{ n int }

func parent() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}

func BenchmarkTimeoutDrop(b *testing.B) {
	ctx, stop := parent()
	defer stop()
	for i := 0; i < b.N; i++ {
		_, cancel := context.WithTimeout(ctx, 30*time.Second)
		cancel()
	}
}

func BenchmarkTimeoutDropAmong100k(b *testing.B) {
	ctx, stop := parent()
	defer stop()
	for i := 0; i < 100_000; i++ {
		_, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
	}
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		_, cancel := context.WithTimeout(ctx, 30*time.Second)
		cancel()
	}
}

func BenchmarkTimeoutDoneDrop(b *testing.B) {
	ctx, stop := parent()
	defer stop()
	for i := 0; i < b.N; i++ {
		child, cancel := context.WithTimeout(ctx, 30*time.Second)
		_ = child.Done()
		cancel()
	}
}

func BenchmarkCancelDrop(b *testing.B) {
	ctx, stop := parent()
	defer stop()
	for i := 0; i < b.N; i++ {
		_, cancel := context.WithCancel(ctx)
		cancel()
	}
}

func BenchmarkErr(b *testing.B) {
	ctx, stop := context.WithTimeout(context.Background(), time.Hour)
	defer stop()
	for i := 0; i < b.N; i++ {
		if ctx.Err() != nil {
			b.Fatal("too early")
		}
	}
}

func depth100() context.Context {
	ctx := context.Background()
	for i := 0; i < 100; i++ {
		ctx = context.WithValue(ctx, key{i}, i)
	}
	return ctx
}

func BenchmarkValue(b *testing.B) {
	ctx := depth100()
	for i := 0; i < b.N; i++ {
		if ctx.Value(key{0}) == nil {
			b.Fatal("not found")
		}
	}
}

func BenchmarkValueMiss(b *testing.B) {
	ctx := depth100()
	for i := 0; i < b.N; i++ {
		if ctx.Value(key{-1}) != nil {
			b.Fatal("found")
		}
	}
}

var sink context.Context

func BenchmarkWithValue(b *testing.B) {
	ctx, stop := parent()
	defer stop()
	for i := 0; i < b.N; i++ {
		sink = context.WithValue(ctx, key{0}, i)
	}
}
