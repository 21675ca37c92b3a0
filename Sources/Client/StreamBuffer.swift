import NIOConcurrencyHelpers

/// The bounded hand-over between the client's loop, which fills it, and one reading task. Above `limit` the filler is told
/// to pause; when half of that has been read, `onRoom` runs, on the reader's thread.
///
/// A second reader at the same time is a mistake of the caller and gets nil.
final class StreamBuffer<Element: Sendable>: Sendable {
    private struct State {
        var elements: [(Element, Int)] = []
        var head = 0
        var cost = 0
        var isPaused = false
        var reader: CheckedContinuation<Element?, any Error>?
        var isFinished = false
        var failure: (any Error)?
    }

    private let state = NIOLockedValueBox(State())
    private let limit: Int
    private let onRoom: @Sendable () -> Void
    /// The reader lost interest: its task was cancelled, or the sequence was dropped.
    private let onAbandoned: @Sendable () -> Void

    init(limit: Int, onRoom: @escaping @Sendable () -> Void, onAbandoned: @escaping @Sendable () -> Void) {
        self.limit = limit
        self.onRoom = onRoom
        self.onAbandoned = onAbandoned
    }

    /// Adds an element that weighs `cost`. Returns true when the source should pause.
    func push(_ element: Element, cost: Int) -> Bool {
        let (reader, pause) = state.withLockedValue { state -> (CheckedContinuation<Element?, any Error>?, Bool) in
            guard !state.isFinished else { return (nil, false) }
            if let reader = state.reader {
                state.reader = nil
                return (reader, false)
            }
            state.elements.append((element, cost))
            state.cost += cost
            if state.cost > limit { state.isPaused = true }
            return (nil, state.isPaused)
        }
        reader?.resume(returning: element)
        return pause
    }

    /// Adds an element and forgets the oldest ones beyond `keeping`: for news of which only the latest matter.
    func pushLatest(_ element: Element, keeping count: Int) {
        let reader = state.withLockedValue { state -> CheckedContinuation<Element?, any Error>? in
            guard !state.isFinished else { return nil }
            if let reader = state.reader {
                state.reader = nil
                return reader
            }
            state.elements.append((element, 0))
            if state.elements.count - state.head > count { state.elements.removeFirst(state.elements.count - count) ; state.head = 0 }
            return nil
        }
        reader?.resume(returning: element)
    }

    /// Ends the sequence after what is in it. Only the first call counts.
    func finish(_ failure: (any Error)? = nil) {
        let reader = state.withLockedValue { state -> CheckedContinuation<Element?, any Error>? in
            guard !state.isFinished else { return nil }
            state.isFinished = true
            state.failure = failure
            defer { state.reader = nil }
            if state.reader != nil { state.failure = nil }
            return state.reader
        }
        guard let reader else { return }
        if let failure { reader.resume(throwing: failure) } else { reader.resume(returning: nil) }
    }

    func abandon() {
        finish(CancellationError())
        onAbandoned()
    }

    private enum Step {
        case element(Element, hasRoom: Bool)
        case end((any Error)?)
        case wait
    }

    private func take(_ state: inout State) -> Step {
        if state.head < state.elements.count {
            let (element, cost) = state.elements[state.head]
            state.head += 1
            state.cost -= cost
            if state.head == state.elements.count {
                state.elements.removeAll(keepingCapacity: state.elements.capacity <= 1_024)
                state.head = 0
            } else if state.head >= 1_024 {
                state.elements.removeFirst(state.head)
                state.head = 0
            }
            let hasRoom = state.isPaused && state.cost <= limit / 2
            if hasRoom { state.isPaused = false }
            return .element(element, hasRoom: hasRoom)
        }
        if state.isFinished {
            // An error is told once; after it the sequence is at its end.
            defer { state.failure = nil }
            return .end(state.failure)
        }
        return .wait
    }

    func next() async throws -> Element? {
        switch state.withLockedValue({ take(&$0) }) {
        case .element(let element, let hasRoom):
            if hasRoom { onRoom() }
            return element
        case .end(let failure):
            if let failure { throw failure }
            return nil
        case .wait: break
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                var room = false
                let outcome: Result<Element?, any Error>? = state.withLockedValue { state in
                    switch take(&state) {
                    case .element(let element, let hasRoom):
                        room = hasRoom
                        return .success(element)
                    case .end(let failure):
                        if let failure { return .failure(failure) }
                        return .success(nil)
                    case .wait:
                        if state.reader != nil { return .success(nil) }
                        state.reader = continuation
                        return nil
                    }
                }
                if room { onRoom() }
                if let outcome { continuation.resume(with: outcome) }
            }
        } onCancel: {
            abandon()
        }
    }
}
