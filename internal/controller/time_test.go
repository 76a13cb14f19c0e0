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
		next, idle := w.operators.next(end)
		if !idle {
			continue // a timer has ended by itself, and the clock must not move before its pass is made
		}
		w.clock.advance(max(0, next.Sub(w.clock.now())))
		w.operators.release()
		if next.Equal(end) {
			w.settle()
			return met()
		}
	}
}

// jump moves the clock between two passes, and makes none that would be due in between. The answer to a call that the clock overtakes would
// count as later than it was.
func (w *world) jump(d time.Duration) {
	w.Helper()
	w.settle()
	w.clock.advance(d)
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

// next returns when the first timer of all ends, or end if that is earlier. It reports false if there is a pass to make at once.
func (o *operators) next(end time.Time) (first time.Time, idle bool) {
	first = end
	for _, q := range o.all() {
		if first, idle = q.next(first); !idle {
			return first, false
		}
	}
	return first, true
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

// queue is an operator's work queue whose timers run by a clock that the test may move, those of the back-off after an error too. In contrast
// to controller-runtime's it can say at any moment whether there is something to do.
type queue struct {
	clock   *clock
	limiter workqueue.TypedRateLimiter[ctrl.Request]

	mu      sync.Mutex
	changed *sync.Cond
	// ready has the resources whose pass is due, in the order in which they were added, and waiting those whose pass is due later.
	ready   []entry
	waiting map[ctrl.Request]*waiting
	// underWay has the resources of which a worker makes a pass.
	underWay     map[ctrl.Request]bool
	begun, ended bool
}

type entry struct {
	request  ctrl.Request
	priority int
}

type waiting struct {
	at       time.Time
	priority int
	timer    *time.Timer
}

func newQueue(c *clock, limiter workqueue.TypedRateLimiter[ctrl.Request]) *queue {
	q := &queue{clock: c, limiter: limiter, waiting: map[ctrl.Request]*waiting{}, underWay: map[ctrl.Request]bool{}}
	q.changed = sync.NewCond(&q.mu)
	return q
}

func (q *queue) Add(r ctrl.Request) { q.AddWithOpts(priorityqueue.AddOpts{}, r) }
func (q *queue) AddAfter(r ctrl.Request, after time.Duration) {
	q.AddWithOpts(priorityqueue.AddOpts{After: after}, r)
}
func (q *queue) AddRateLimited(r ctrl.Request) {
	q.AddWithOpts(priorityqueue.AddOpts{RateLimited: true}, r)
}
func (q *queue) Forget(r ctrl.Request)          { q.limiter.Forget(r) }
func (q *queue) NumRequeues(r ctrl.Request) int { return q.limiter.NumRequeues(r) }

func (q *queue) AddWithOpts(o priorityqueue.AddOpts, rs ...ctrl.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return
	}
	for _, r := range rs {
		after, priority := o.After, 0
		if o.Priority != nil {
			priority = *o.Priority
		}
		if o.RateLimited {
			if limited := q.limiter.When(r); after == 0 || limited < after {
				after = limited
			}
		}
		if after <= 0 || q.indexReady(r) >= 0 {
			q.addReady(r, priority)
			continue
		}
		at, before := q.clock.now().Add(after), q.waiting[r]
		if before != nil {
			priority = max(priority, before.priority)
			if before.at.Before(at) {
				at = before.at
			}
			before.timer.Stop()
		}
		q.waiting[r] = &waiting{at: at, priority: priority, timer: time.AfterFunc(at.Sub(q.clock.now()), q.release)}
	}
}

// indexReady returns the index of a resource among those that are ready, or -1.
func (q *queue) indexReady(r ctrl.Request) int {
	return slices.IndexFunc(q.ready, func(e entry) bool { return e.request == r })
}

// addReady makes a resource ready, once.
func (q *queue) addReady(r ctrl.Request, priority int) {
	if w := q.waiting[r]; w != nil {
		priority = max(priority, w.priority)
		w.timer.Stop()
		delete(q.waiting, r)
	}
	if i := q.indexReady(r); i >= 0 {
		q.ready[i].priority = max(q.ready[i].priority, priority)
	} else {
		q.ready = append(q.ready, entry{r, priority})
	}
	q.changed.Broadcast()
}

// release makes the resources ready whose time has come, and sets the timers of the others after the clock was moved.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for r, w := range q.waiting {
		if left := w.at.Sub(q.clock.now()); left > 0 {
			w.timer.Reset(left)
		} else {
			q.addReady(r, w.priority)
		}
	}
}

// next returns when the first timer ends, or end if that is earlier. It reports false if there is a pass to make at once.
func (q *queue) next(end time.Time) (first time.Time, idle bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	first = end
	for _, w := range q.waiting {
		if w.at.Before(first) {
			first = w.at
		}
	}
	return first, !q.isBusy()
}

func (q *queue) Get() (ctrl.Request, bool) { r, _, ended := q.GetWithPriority(); return r, ended }
func (q *queue) GetWithPriority() (ctrl.Request, int, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.ended {
		best := -1
		for i, e := range q.ready {
			if !q.underWay[e.request] && (best < 0 || e.priority > q.ready[best].priority) {
				best = i
			}
		}
		if best >= 0 {
			e := q.ready[best]
			q.ready = slices.Delete(q.ready, best, best+1)
			q.underWay[e.request], q.begun = true, true
			return e.request, e.priority, false
		}
		q.changed.Wait()
	}
	return ctrl.Request{}, 0, true
}

func (q *queue) Done(r ctrl.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.underWay, r)
	q.changed.Broadcast()
}

func (q *queue) busy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.isBusy()
}

func (q *queue) isBusy() bool {
	return !q.ended && (!q.begun || len(q.underWay) > 0 || len(q.ready) > 0)
}

func (q *queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ready)
}

func (q *queue) ShuttingDown() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended
}

func (q *queue) ShutDownWithDrain() { q.ShutDown() }
func (q *queue) ShutDown() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	for _, w := range q.waiting {
		w.timer.Stop()
	}
	q.waiting = nil
	q.changed.Broadcast()
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
	field := reflect.ValueOf(r).Elem().FieldByName("NewQueue")
	if !field.IsValid() {
		return fmt.Errorf("%T has no NewQueue any more", r)
	}
	replacement := func(_ string, limiter workqueue.TypedRateLimiter[ctrl.Request]) workqueue.TypedRateLimitingInterface[ctrl.Request] {
		q := newQueue(m.world.clock, limiter)
		m.world.operators.mu.Lock()
		defer m.world.operators.mu.Unlock()
		m.world.operators.queues = append(m.world.operators.queues, q)
		return q
	}
	field.Set(reflect.ValueOf(replacement))
	return nil
}
