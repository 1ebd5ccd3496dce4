#include "flow.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "files.h"

std::atomic<bool> interrupted{false};

void check_interrupted() {
    if (interrupted) throw Error("interrupted; run the same command again to go on", INTERRUPTED);
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

namespace {

class Running {
  public:
    explicit Running(const Flow &flow) : flow_(flow), held_(flow.ahead()) {
        for (size_t number = 0; number < flow.loaders; ++number) threads_.emplace_back([this] { load(); });
        for (size_t number = 0; flow.instances > 1 && number < flow.instances; ++number)
            threads_.emplace_back([this, number] { run(number); });
    }
    ~Running() {
        {
            std::lock_guard<std::mutex> alone(lock_);
            stopped_ = true;
        }
        changed_.notify_all();
        for (std::thread &thread : threads_) thread.join();
    }

    void take() {
        for (size_t item = 0; item < flow_.items; ++item) {
            Held &held = held_[item % held_.size()];
            std::unique_lock<std::mutex> alone(lock_);
            const int wanted = flow_.instances > 1 ? DONE : LOADED;
            while (held.stage != wanted) {
                check_interrupted();
                changed_.wait_for(alone, std::chrono::milliseconds(100));
            }
            alone.unlock();
            if (held.problem) std::rethrow_exception(held.problem);
            if (flow_.instances == 1) flow_.run(0, item);
            flow_.take(item);
            alone.lock();
            held = {};
            ++taken_;
            alone.unlock();
            changed_.notify_all();
        }
    }

  private:
    enum { FREE, LOADING, LOADED, DONE };
    struct Held {
        int stage = FREE;
        size_t left = 0;
        std::exception_ptr problem;
    };

    template <typename Work> void guarded(Held &held, Work work) {
        try {
            work();
        } catch (...) {
            std::lock_guard<std::mutex> alone(lock_);
            if (!held.problem) held.problem = std::current_exception();
        }
    }

    void load() {
        std::unique_lock<std::mutex> alone(lock_);
        while (true) {
            changed_.wait(alone, [this] { return stopped_ || item_ == flow_.items || item_ < taken_ + held_.size(); });
            if (stopped_ || item_ == flow_.items) return;
            const size_t item = item_, part = part_;
            Held &held = held_[item % held_.size()];
            if (part == 0) held.stage = LOADING, held.left = flow_.parts(item);
            if (++part_ == flow_.parts(item)) ++item_, part_ = 0;
            alone.unlock();
            guarded(held, [&] { flow_.load(item, part); });
            alone.lock();
            if (--held.left == 0) held.stage = LOADED, changed_.notify_all();
        }
    }

    void run(size_t instance) {
        std::unique_lock<std::mutex> alone(lock_);
        while (next_ < flow_.items) {
            const size_t item = next_++;
            Held &held = held_[item % held_.size()];
            changed_.wait(alone, [&] { return stopped_ || (item < taken_ + held_.size() && held.stage == LOADED); });
            if (stopped_) return;
            const bool whole = !held.problem;
            alone.unlock();
            if (whole) guarded(held, [&] { flow_.run(instance, item); });
            alone.lock();
            held.stage = DONE;
            changed_.notify_all();
        }
    }

    const Flow &flow_;
    std::mutex lock_;
    std::condition_variable changed_;
    std::vector<Held> held_;
    std::vector<std::thread> threads_;
    size_t item_ = 0, part_ = 0, next_ = 0, taken_ = 0;
    bool stopped_ = false;
};

}  // namespace

void Flow::go() const { Running(*this).take(); }
