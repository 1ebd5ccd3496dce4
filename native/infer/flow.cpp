#include "flow.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "files.h"

std::atomic<bool> interrupted{false};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

namespace {

void check_interrupted() {
    if (interrupted) throw Error("interrupted; run the same command again", INTERRUPTED);
}

// Threads that load images in order, some batches ahead, and one for each of several instances of the model.
class Running {
  public:
    Running(const Flow &flow, Engine &engine)
        : flow_(flow), engine_(engine), size_(engine.input.batch), bytes_(engine.input.bytes()), places_(2 * engine.instances + 1) {
        for (Place &place : places_) place.batch.data.resize(size_ * bytes_), place.batch.made.resize(size_);
        for (size_t number = 0; number < flow.loaders; ++number) threads_.emplace_back([this] { load(); });
        for (size_t instance = 0; has_threads() && instance < engine.instances; ++instance)
            threads_.emplace_back([this, instance] { run(instance); });
    }
    ~Running() {
        lock_.lock();
        stopped_ = true;
        lock_.unlock();
        changed_.notify_all();
        for (std::thread &thread : threads_) thread.join();
    }

    void take() {
        for (; taken_ * size_ < flow_.images; leave()) {
            Place &place = at(taken_);
            std::unique_lock<std::mutex> alone(lock_);
            const auto ready = [&] { return has_threads() ? place.done : is_loaded(taken_); };
            while (!changed_.wait_for(alone, std::chrono::milliseconds(100), ready)) check_interrupted();
            alone.unlock();
            if (place.problem) std::rethrow_exception(place.problem);
            if (!has_threads()) run_on(0, taken_);
            flow_.take(place.batch);
        }
    }

  private:
    struct Place {
        Batch batch;
        size_t loaded = 0;  // images
        bool done = false;  // it was run
        std::exception_ptr problem;
    };

    bool has_threads() const { return engine_.instances > 1; }  // an NPU is used by the thread that opened it
    Place &at(size_t batch) { return places_[batch % places_.size()]; }
    size_t images(size_t batch) const { return std::min(size_, flow_.images - batch * size_); }
    bool is_loaded(size_t batch) { return batch < taken_ + places_.size() && at(batch).loaded == images(batch); }

    // Leaves the place of the oldest batch to another one.
    void leave() {
        std::lock_guard<std::mutex> alone(lock_);
        at(taken_).loaded = 0, at(taken_).done = false;
        ++taken_;
        changed_.notify_all();
    }

    // Works while others may, and keeps what that raises.
    template <typename Work> void apart(std::unique_lock<std::mutex> &alone, Place &place, Work work) {
        std::exception_ptr problem;
        alone.unlock();
        try {
            work();
        } catch (...) {
            problem = std::current_exception();
        }
        alone.lock();
        if (!place.problem) place.problem = problem;
    }

    void load() {
        std::unique_lock<std::mutex> alone(lock_);
        while (next_image_ < flow_.images) {
            const size_t image = next_image_++, batch = image / size_, within = image % size_;
            Place &place = at(batch);
            changed_.wait(alone, [&] { return stopped_ || batch < taken_ + places_.size(); });
            if (stopped_) return;
            apart(alone, place, [&] { place.batch.made[within] = flow_.load(image, &place.batch.data[within * bytes_]); });
            if (++place.loaded == images(batch)) changed_.notify_all();
        }
    }

    void run(size_t instance) {
        std::unique_lock<std::mutex> alone(lock_);
        while (next_batch_ * size_ < flow_.images) {
            const size_t batch = next_batch_++;
            changed_.wait(alone, [&] { return stopped_ || is_loaded(batch); });
            if (stopped_) return;
            if (!at(batch).problem) apart(alone, at(batch), [&] { run_on(instance, batch); });
            at(batch).done = true;
            changed_.notify_all();
        }
    }

    void run_on(size_t instance, size_t number) {
        Batch &batch = at(number).batch;
        batch.first = number * size_, batch.images = images(number);
        batch.spans.clear();
        for (size_t image = batch.images; image < size_; ++image)
            std::memcpy(&batch.data[image * bytes_], batch.data.data(), bytes_);
        for (size_t time = 0; time < flow_.times; ++time) {
            check_interrupted();
            batch.answers = engine_.run(instance, batch.data.data());
            batch.spans.push_back(batch.answers.span);
        }
    }

    const Flow &flow_;
    Engine &engine_;
    const size_t size_, bytes_;
    std::mutex lock_;
    std::condition_variable changed_;
    std::vector<Place> places_;
    std::vector<std::thread> threads_;
    size_t next_image_ = 0, next_batch_ = 0, taken_ = 0;
    bool stopped_ = false;
};

}  // namespace

void Flow::through(Engine &engine) const { Running(*this, engine).take(); }
