import Foundation
import Synchronization
import UI

/// Plays a recording to the console: what was heard arrives again, at the pace it had or another. Its clock is the recording's.
///
/// Lines are decoded in a thread of its own, from the beginning on; playing begins with the first. What was decoded stays in memory, so
/// that going back means hearing it again from the start.
final class ReplayRunner: CommandRunner {
    private struct State {
        var events: [RecordedEvent] = []
        /// The first that was not delivered.
        var next = 0
        var loadedLines = 0
        var elections: [Moment] = []
        var damage: CommandFailure?
        var end: Moment
        // The clock: at `wall` it was `base`.
        var base: Moment
        var wall: Int64
        var speed = 1.0
        var isPlaying = true
        /// A jump beyond what has been read waits for it.
        var target: Moment?
        var isStopped = false
        var hasStarted = false
    }

    private let recording: Recording
    private let mailbox: Mailbox
    private let state: Mutex<State>

    init(_ recording: Recording, mailbox: Mailbox) {
        self.recording = recording
        self.mailbox = mailbox
        state = Mutex(State(end: recording.end, base: recording.header.start, wall: Clock.monotonicNanoseconds()))
    }

    /// What is wrong with the file, found after the console opened.
    var damage: CommandFailure? { state.withLock { $0.damage } }

    // MARK: The clock

    func now() -> Moment { state.withLock { ReplayRunner.position($0) } }

    func nanoseconds(until moment: Moment) -> Int64 {
        state.withLock { state in
            guard state.isPlaying else { return .max }
            let wait = Double(moment - ReplayRunner.position(state)) * 1_000_000 / state.speed
            return max(ReplayRunner.shortestWait, Int64(wait))
        }
    }

    /// However fast it plays: no more frames than a person sees.
    private static let shortestWait: Int64 = 20_000_000

    private static func position(_ state: State) -> Moment {
        guard state.isPlaying else { return state.base }
        let passed = Double(Clock.monotonicNanoseconds() - state.wall) / 1_000_000 * state.speed
        let moment = state.base.advanced(byMilliseconds: Int64(passed))
        let end = state.loadedLines < 0 ? state.end : min(state.end, state.events.last?.at ?? state.base)
        return min(moment, max(end, state.base))
    }

    private static func setClock(_ state: inout State, _ moment: Moment) {
        state.base = moment
        state.wall = Clock.monotonicNanoseconds()
    }

    // MARK: CommandRunner

    func start() {
        let isFirst = state.withLock { state in
            defer { state.hasStarted = true }
            return !state.hasStarted
        }
        guard isFirst else { return }
        mailbox.post(.playback(Playback(events: [], restart: recording.header)))
        state.withLock { ReplayRunner.setClock(&$0, recording.header.start); tell($0) }
        Thread.detachNewThread { [self] in load() }
        Thread.detachNewThread { [self] in pump() }
    }

    func perform(_ command: Command) {
        switch command {
        case .replay(let control): carryOut(control)
        case .loadDirectory(let request):
            mailbox.post(.directory(DirectoryPage(request: request, entries: [], isComplete: true, revision: 0, failure: "keys are not part of a recording")))
        case .loadValue(let id, let key, _): mailbox.post(.value(id, key: key, value: nil, failure: "values are not part of a recording"))
        case .loadHistory(let id, let key, _, _): mailbox.post(.history(id, key: key, versions: [], isComplete: true, compactRevision: nil, failure: "values are not part of a recording"))
        case .countPrefix(let id, let prefix, _): mailbox.post(.count(id, prefix: prefix, count: 0, samples: [], leased: nil, failure: "keys are not part of a recording"))
        case .search(let id, _, _, _): mailbox.post(.searchResults(id, keys: [], scanned: 0, isFinished: true, failure: "keys are not part of a recording"))
        case .openWatch(let id, _, _): mailbox.post(.watch(id, .failed("watches are not part of a recording")))
        case .saveEvents(let id, _, _): answer(id, "watches are not part of a recording")
        case .export(let id, let path, let content): FileExport.write(content, to: path, answering: id, mailbox)
        case .record(let id, _): answer(id, "this is a recording already")
        case .loadLease, .cancelSearch, .followKeys, .closeWatch, .scrapeMetrics, .refresh: break
        case .put(let id, _, _, _, _), .delete(let id, _, _), .rename(let id, _, _, _, _, _), .deleteKeys(let id, _), .deletePrefix(let id, _, _), .restore(let id, _),
             .addFault(let id, _, _), .healFault(let id, _), .healAllFaults(let id), .restartNode(let id, _), .runScenario(let id, _), .stopScenario(let id),
             .transferLeadership(let id, _), .setWorkload(let id, _), .setCanary(let id, _):
            answer(id, "this is a recording: nothing can be changed in it")
        case .openEditor, .copyToClipboard, .saveScreen, .useTheme, .redraw, .suspend, .quit:
            preconditionFailure("\(command) belongs to the console's own thread")
        }
    }

    func stop() async { state.withLock { $0.isStopped = true } }
    func abandon() { state.withLock { $0.isStopped = true } }

    private func answer(_ id: RequestID, _ failure: String) { mailbox.post(.finished(CommandResult(request: id, outcome: .failed(failure)))) }

    // MARK: Control

    private func carryOut(_ control: ReplayControl) {
        state.withLock { state in
            let here = ReplayRunner.position(state)
            switch control {
            case .play: state.isPlaying = true
            case .pause: state.isPlaying = false
            case .speed(let speed): state.speed = min(100, max(0.1, speed))
            case .seek(let wanted):
                seek(&state, min(max(wanted, recording.header.start), state.end))
                tell(state)
                return
            }
            ReplayRunner.setClock(&state, here)
            tell(state)
        }
    }

    private func seek(_ state: inout State, _ moment: Moment) {
        let last = state.events.last?.at ?? recording.header.start
        // What has not been read yet is waited for, at the edge.
        state.target = state.loadedLines >= 0 && moment > last ? moment : nil
        let reached = state.target == nil ? moment : last
        let count = ReplayRunner.place(state.events, after: reached)
        if count >= state.next, reached >= ReplayRunner.position(state) {
            mailbox.post(.playback(Playback(events: state.events[state.next..<count])))
        } else {
            mailbox.post(.playback(Playback(events: state.events[..<count], restart: recording.header)))
        }
        state.next = count
        ReplayRunner.setClock(&state, reached)
    }

    /// How many events were heard up to a moment.
    private static func place(_ events: [RecordedEvent], after moment: Moment) -> Int {
        var low = 0, high = events.count
        while low < high {
            let middle = (low + high) / 2
            if events[middle].at <= moment { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func tell(_ state: State) {
        let percent = state.loadedLines < 0 || recording.lines.isEmpty ? 100 : min(99, state.loadedLines * 100 / recording.lines.count)
        mailbox.post(.replay(ReplayState(start: recording.header.start, end: state.end, position: ReplayRunner.position(state), isPlaying: state.isPlaying, speed: state.speed,
                                         elections: state.elections, loadedPercent: percent)))
    }

    // MARK: Reading

    private static let pieceLines = 500

    private func load() {
        let decoder = JSONDecoder()
        var index = 0
        var terms: Set<UInt64> = []
        while index < recording.lines.count {
            let end = min(index + ReplayRunner.pieceLines, recording.lines.count)
            var piece: [RecordedEvent] = []
            var marks: [Moment] = []
            var damage: CommandFailure?
            for line in index..<end {
                do {
                    let event = try recording.decode(line, decoder)
                    marks += ReplayRunner.elections(event, &terms)
                    piece.append(event)
                } catch {
                    damage = error as? CommandFailure
                    break
                }
            }
            index = end
            let goesOn = state.withLock { state -> Bool in
                // Written by several threads, so that neighbours may have changed places by a millisecond.
                for event in piece {
                    var event = event
                    event.at = max(event.at, state.events.last?.at ?? recording.header.start)
                    state.events.append(event)
                }
                state.elections += marks
                state.loadedLines = index == recording.lines.count || damage != nil ? -1 : index
                if let damage {
                    state.damage = damage
                    state.end = state.events.last?.at ?? recording.header.start
                    mailbox.post(.notice("\(damage.description): it ends here", isBad: true))
                }
                if let target = state.target { seek(&state, min(target, state.end)) }
                tell(state)
                return !state.isStopped && damage == nil
            }
            guard goesOn else { return }
        }
        state.withLock { state in
            state.loadedLines = -1
            tell(state)
        }
    }

    /// When a leader was elected; whichever told it first counts. The one at the start of a session is none to jump to.
    private static func elections(_ event: RecordedEvent, _ terms: inout Set<UInt64>) -> [Moment] {
        switch event.event {
        case .raft(let events):
            events.compactMap { event in
                if case .elected = event.kind, terms.insert(event.term).inserted { event.at } else { nil }
            }
        case .events(let events):
            events.compactMap { event in
                if case .elected(_, _?, _, let term, _, _) = event.kind, terms.insert(term).inserted { event.at } else { nil }
            }
        default: []
        }
    }

    // MARK: Playing

    private static let pumpMilliseconds: UInt32 = 25

    private func pump() {
        while true {
            let isStopped = state.withLock { state -> Bool in
                guard state.isPlaying, !state.isStopped else { return state.isStopped }
                let here = ReplayRunner.position(state)
                let count = ReplayRunner.place(state.events, after: here)
                if count > state.next {
                    mailbox.post(.playback(Playback(events: state.events[state.next..<count])))
                    state.next = count
                }
                if state.loadedLines < 0, here >= state.end {
                    state.isPlaying = false
                    ReplayRunner.setClock(&state, state.end)
                    tell(state)
                }
                return false
            }
            if isStopped { return }
            usleep(ReplayRunner.pumpMilliseconds * 1_000)
        }
    }
}

/// A file that a person asked for.
enum FileExport {
    static func write(_ content: [UInt8], to path: String, answering id: RequestID, _ mailbox: Mailbox) {
        DispatchQueue.global().async {
            let start = Clock.monotonicNanoseconds()
            let full = Paths.expanded(path)
            let outcome: CommandResult.Outcome
            do throws(FileFailure) {
                try PrivateFile.create(full, content)
                outcome = .done(revision: nil, detail: "saved to \(Paths.abbreviated(full)), \(content.count) bytes")
            } catch {
                outcome = .failed("\(error)")
            }
            mailbox.post(.finished(CommandResult(request: id, outcome: outcome, durationMicroseconds: Clock.microseconds(since: start))))
        }
    }
}
