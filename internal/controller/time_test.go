// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// advance lets time pass for WeChat and the operators. The timers of the operators run by the same clock, so they make each pass
// that they would make in that time, one due time after the other.
func (w *world) advance(d time.Duration) {
	w.Helper()
	w.lapse(d, func() bool { return false })
}

// lapse is advance until something is true, which is looked at after each pass. It reports whether that came about.
func (w *world) lapse(d time.Duration, met func() bool) bool {
	w.Helper()
	for end := w.clock.now().Add(d); ; {
		w.settle()
		if met() {
			return true
		}
		next, ok := w.operators.next()
		if !ok || next.After(end) {
			next = end
		}
		w.clock.advance(max(0, next.Sub(w.clock.now())))
		w.operators.release()
		if next.Equal(end) {
			w.settle()
			return met()
		}
	}
}

// throughout does something again and again while time passes: four times a second, and each time the operators get a moment to notice.
func (w *world) throughout(d time.Duration, do func()) {
	w.Helper()
	for end := w.clock.now().Add(d); w.clock.now().Before(end); w.advance(200 * time.Millisecond) {
		do()
		time.Sleep(50 * time.Millisecond)
	}
}

// settle waits until no operator makes a pass. Each needs a resource for its first one.
func (w *world) settle() {
	w.Helper()
	for end, idle := time.Now().Add(patience), 0; idle < 3; time.Sleep(2 * time.Millisecond) {
		if idle++; w.operators.busy() {
			idle = 0
		}
		if time.Now().After(end) {
			w.Fatalf("the operators are still busy after %s", patience)
		}
	}
}

// operators are those of a world.
type operators struct {
	mu      sync.Mutex
	last    *operator
	started int
	queues  []*queue
}

func (o *operators) all() []*queue {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clip(o.queues)
}

// next is when the first timer of all ends; false without one.
func (o *operators) next() (first time.Time, ok bool) {
	for _, q := range o.all() {
		if at, found := q.next(); found && (!ok || at.Before(first)) {
			first, ok = at, true
		}
	}
	return first, ok
}

func (o *operators) release() {
	for _, q := range o.all() {
		q.release()
	}
}

// busy reports whether an operator makes a pass, or has yet to make its first one.
func (o *operators) busy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queues) < o.started || slices.ContainsFunc(o.queues, (*queue).busy)
}

// queue is an operator's work queue whose timers run by a clock that the test may move.
type queue struct {
	priorityqueue.PriorityQueue[ctrl.Request]

	clock *clock

	mu      sync.Mutex
	waiting map[ctrl.Request]*waiting
	// ready has the resources whose pass was not begun yet: also those that a worker has taken from the queue a moment ago.
	ready map[ctrl.Request]bool
	// passes is how many are made at the moment.
	passes       int
	begun, ended bool
}

// waiting is a resource whose pass is due later.
type waiting struct {
	at       time.Time
	priority *int
	timer    *time.Timer
}

func (q *queue) Add(r ctrl.Request) { q.AddWithOpts(priorityqueue.AddOpts{}, r) }
func (q *queue) AddAfter(r ctrl.Request, after time.Duration) {
	q.AddWithOpts(priorityqueue.AddOpts{After: after}, r)
}
func (q *queue) AddRateLimited(r ctrl.Request) {
	q.AddWithOpts(priorityqueue.AddOpts{RateLimited: true}, r)
}
func (q *queue) Get() (ctrl.Request, bool) { r, _, ended := q.GetWithPriority(); return r, ended }
func (q *queue) AddWithOpts(o priorityqueue.AddOpts, rs ...ctrl.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range rs {
		before := q.waiting[r]
		if o.After > 0 && !o.RateLimited && !q.ended {
			at := q.clock.now().Add(o.After)
			if before != nil && before.at.Before(at) {
				continue
			}
			q.waiting[r] = &waiting{at: at, priority: o.Priority, timer: time.AfterFunc(o.After, q.release)}
		} else {
			delete(q.waiting, r)
			if !o.RateLimited {
				q.ready[r] = true
			}
			q.PriorityQueue.AddWithOpts(o, r)
		}
		if before != nil {
			before.timer.Stop()
		}
	}
}

// release makes the resources ready whose time has come, and sets the timers of the others after the clock was moved.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for r, w := range q.waiting {
		if left := w.at.Sub(q.clock.now()); left > 0 {
			w.timer.Reset(left)
			continue
		}
		delete(q.waiting, r)
		w.timer.Stop()
		q.ready[r] = true
		q.PriorityQueue.AddWithOpts(priorityqueue.AddOpts{Priority: w.priority}, r)
	}
}

func (q *queue) next() (first time.Time, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.waiting {
		if !ok || w.at.Before(first) {
			first, ok = w.at, true
		}
	}
	return first, ok
}

func (q *queue) GetWithPriority() (ctrl.Request, int, bool) {
	r, priority, ended := q.PriorityQueue.GetWithPriority()
	if !ended {
		q.mu.Lock()
		q.passes, q.begun = q.passes+1, true
		delete(q.ready, r)
		q.mu.Unlock()
	}
	return r, priority, ended
}

func (q *queue) Done(r ctrl.Request) {
	q.PriorityQueue.Done(r)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.passes--
}

func (q *queue) busy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.ended && (!q.begun || q.passes > 0 || len(q.ready) > 0 || q.Len() > 0)
}

func (q *queue) ShutDown() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	for _, w := range q.waiting {
		w.timer.Stop()
	}
	q.waiting = nil
	q.PriorityQueue.ShutDown()
}

// timedManager is a manager that gives its controller such a queue.
type timedManager struct {
	ctrl.Manager

	world *world
}

func (m timedManager) Add(r manager.Runnable) error {
	if _, ok := r.(ctrlcontroller.Controller); ok {
		if err := m.replaceQueue(r); err != nil {
			return err
		}
	}
	return m.Manager.Add(r)
}

// replaceQueue does what the option NewQueue is for, which only the operator's own code can give: it is kept in a field of the same name.
func (m timedManager) replaceQueue(r manager.Runnable) error {
	type newQueue = func(string, workqueue.TypedRateLimiter[ctrl.Request]) workqueue.TypedRateLimitingInterface[ctrl.Request]
	field := reflect.ValueOf(r).Elem().FieldByName("NewQueue")
	if !field.IsValid() {
		return fmt.Errorf("%T has no NewQueue any more", r)
	}
	operators := field.Interface().(newQueue)
	field.Set(reflect.ValueOf(func(name string, limiter workqueue.TypedRateLimiter[ctrl.Request]) workqueue.TypedRateLimitingInterface[ctrl.Request] {
		q := &queue{
			PriorityQueue: operators(name, limiter).(priorityqueue.PriorityQueue[ctrl.Request]), clock: m.world.clock,
			waiting: map[ctrl.Request]*waiting{}, ready: map[ctrl.Request]bool{},
		}
		m.world.operators.mu.Lock()
		defer m.world.operators.mu.Unlock()
		m.world.operators.queues = append(m.world.operators.queues, q)
		return q
	}))
	return nil
}
