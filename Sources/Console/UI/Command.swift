/// Names a request, so that its answer finds its way. Made by the UI.
public struct RequestID: Hashable, Sendable {
    public var number: UInt64
    public init(number: UInt64) { self.number = number }
}

/// Names a watch of the Watch view. Made by the UI.
public struct WatchID: Hashable, Comparable, Sendable {
    public var number: Int
    public init(number: Int) { self.number = number }
    public static func < (a: WatchID, b: WatchID) -> Bool { a.number < b.number }
}

/// The guard of a write: it happens only if the key is still as the person saw it.
public enum Expectation: Hashable, Sendable {
    /// The key's mod revision is exactly this.
    case modRevision(Int64)
    /// The key does not exist.
    case absent
    /// No guard; only after the person said "overwrite".
    case none
}

/// What the runtime must do for the person. The UI itself does nothing but say so; answers come back as `DataEvent`s.
/// No command may make the runtime's caller wait.
public enum Command: Hashable, Sendable {
    // MARK: Reads
    /// Answer: `.directory`.
    case loadDirectory(DirectoryRequest)
    /// Answer: `.value`. `revision` nil: now.
    case loadValue(RequestID, key: KeyBytes, revision: Int64?)
    /// Walk back over the versions of a key from `modRevision`, newest first, `limit` at most. Answer: `.history`.
    case loadHistory(RequestID, key: KeyBytes, modRevision: Int64, limit: Int)
    /// Answer: `.lease`.
    case loadLease(UInt64)
    /// Count the keys under a prefix and give up to `samples` of them. Answer: `.count`.
    case countPrefix(RequestID, prefix: KeyBytes, samples: Int)
    /// Scan for keys under `prefix` that contain `needle` (empty: all), keys only, pages of at most 1,000, until `limit` are found
    /// or the prefix ends. Answers: `.searchResults`, any number, the last with `isFinished`. A new search cancels the former.
    case search(RequestID, prefix: KeyBytes, needle: [UInt8], limit: Int)
    case cancelSearch
    /// Follow changes of the whole key space (no values). Answers: `.changes`, batched by frame.
    case followKeys(Bool)

    // MARK: Writes to the cluster
    /// Answer to each: `.finished` with the same id.
    case put(RequestID, key: KeyBytes, value: [UInt8], lease: UInt64, expecting: Expectation)
    case delete(RequestID, key: KeyBytes, expecting: Expectation)
    /// One transaction: `to` must not exist, `from` unchanged; put and delete together, lease kept.
    case rename(RequestID, from: KeyBytes, to: KeyBytes, value: [UInt8], lease: UInt64, modRevision: Int64)
    /// Deletes keys that were marked, each guarded; answer carries the removed ones.
    case deleteKeys(RequestID, [KeySummary])
    /// Answer carries the removed keys while they are fewer than `undoLimit`.
    case deletePrefix(RequestID, prefix: KeyBytes, undoLimit: Int)
    /// Undo of deletes: put these back, each only if it still does not exist. Leases are not restored when they are gone.
    case restore(RequestID, [KeyValue])

    // MARK: Watches
    /// Answers: `.watch`. `fromRevision` nil: from now. Previous values are asked for.
    case openWatch(WatchID, target: WatchTarget, fromRevision: Int64?)
    case closeWatch(WatchID)
    /// Write JSON lines, one a line, to `path` (`~` expanded); never overwrites. Answer: `.finished`.
    case saveEvents(RequestID, path: String, events: [WatchEvent])

    // MARK: Nodes of a playground
    /// Switch a fault on; with `milliseconds`, it ends by itself. The same fault again only moves its end. Answers: `.finished`, and
    /// `.faults` whenever the list changes.
    case addFault(RequestID, Fault, milliseconds: Int64?)
    /// A killed or stopped node starts again, a paused one goes on, links and disks work as before.
    case healFault(RequestID, Fault)
    case healAllFaults(RequestID)
    /// Start a dead node on its data, or stop a live one cleanly and start it. Ends its `.kill`, `.stop` and `.tornTail`.
    case restartNode(RequestID, member: UInt64)
    /// Answers: `.scenario` until it has ended.
    case runScenario(RequestID, name: String)
    case stopScenario(RequestID)
    /// Also for attached clusters (MoveLeader).
    case transferLeadership(RequestID, to: UInt64)
    /// Start the built-in workload, change it while it runs, or stop it (nil). Answers: `.workload` each second while it runs.
    case setWorkload(RequestID, settings: WorkloadSettings?)
    /// The canary writer, by a person's wish. (The runtime also runs it by itself around faults and elections of a playground.)
    case setCanary(RequestID, isOn: Bool)

    /// Read `/metrics` of every member each second from now on, or no longer. Answers: `.metrics`.
    case scrapeMetrics(Bool)

    // MARK: The console itself
    /// Leave the screen, run $VISUAL/$EDITOR on a private temporary file with this content, come back. Answer: `.editorClosed`.
    /// `fileExtension` helps the editor colour it (`json`, `txt`).
    case openEditor(RequestID, content: [UInt8], fileExtension: String)
    /// Put text on the clipboard (OSC 52). Answer: `.finished`.
    case copyToClipboard(RequestID, String)
    /// Write `content` to `path` (`~` expanded); never overwrites. Answer: `.finished`.
    case export(RequestID, path: String, content: [UInt8])
    /// Record everything that the console hears to a file, for `quarterdeck replay`; nil ends the recording. Answer: `.finished`.
    case record(RequestID, path: String?)
    /// Only in a replay. Answers: `.replay`.
    case replay(ReplayControl)
    /// Save the screen as text and ANSI below the state directory. Answer: `.finished`.
    case saveScreen(RequestID)
    /// The theme with this name; the runtime sends `.theme` back.
    case useTheme(String)
    /// Read the cluster now rather than at the next period.
    case refresh
    /// Clear the terminal and paint everything again.
    case redraw
    case suspend
    /// Stop everything that was started and leave.
    case quit

    /// True for every command that changes the cluster's data or nodes. With `--read-only` none of them is ever emitted.
    public var changesCluster: Bool {
        switch self {
        case .put, .delete, .rename, .deleteKeys, .deletePrefix, .restore, .addFault, .healFault, .healAllFaults, .restartNode,
             .runScenario, .stopScenario, .transferLeadership, .setWorkload, .setCanary:
            true
        case .loadDirectory, .loadValue, .loadHistory, .loadLease, .countPrefix, .search, .cancelSearch, .followKeys, .openWatch,
             .closeWatch, .saveEvents, .scrapeMetrics, .export, .record, .replay, .openEditor, .copyToClipboard, .saveScreen, .useTheme, .refresh, .redraw, .suspend, .quit:
            false
        }
    }
}

/// What a person does with the clock of a replay.
public enum ReplayControl: Hashable, Sendable {
    case play, pause
    /// 0.1 ... 100 times as fast as it happened.
    case speed(Double)
    case seek(Moment)
}

/// How a command that carries a `RequestID` ended.
public struct CommandResult: Hashable, Sendable {
    public enum Outcome: Hashable, Sendable {
        /// `revision` for writes. `detail` is a short fact to show ("saved to ~/x.jsonl", "n1 killed").
        case done(revision: Int64?, detail: String?)
        /// The guard refused: the key as it is now, nil if it is gone (or, for `.absent`, the one that exists).
        case conflict(current: KeyValue?)
        case failed(String)
    }

    public var request: RequestID
    public var outcome: Outcome
    public var durationMicroseconds: Int
    /// What the write replaced or removed, for undo. Empty when there was nothing, or too much.
    public var removed: [KeyValue]
    /// Number of keys the write removed.
    public var removedCount: Int64

    public init(request: RequestID, outcome: Outcome, durationMicroseconds: Int = 0, removed: [KeyValue] = [], removedCount: Int64 = 0) {
        self.request = request
        self.outcome = outcome
        self.durationMicroseconds = durationMicroseconds
        self.removed = removed
        self.removedCount = removedCount
    }
}

/// What the runtime tells about a watch.
public enum WatchUpdate: Hashable, Sendable {
    /// In revision order, as received; batch them by frame.
    case events([WatchEvent])
    /// Created or created again, and following. `revision` is where it stands.
    case live(revision: Int64)
    /// The stream broke and is being resumed after this revision; "lost n3, resuming".
    case resuming(afterRevision: Int64, reason: String)
    /// Back: on which endpoint, after how long; nothing was missed.
    case resumed(afterRevision: Int64, endpoint: String, milliseconds: Int64)
    /// The revision to resume from was compacted: the stream continues at `compactRevision` and events between are lost.
    case compacted(compactRevision: Int64)
    /// A progress notification: everything up to this revision has been seen.
    case progress(revision: Int64)
    case failed(String)
}

/// What reaches the UI from outside the keyboard.
public enum DataEvent: Sendable {
    case cluster(ClusterState)
    case events([ClusterEvent])
    case workload(WorkloadSample)
    /// What nodes' consensus did. In order for each node; those of several nodes may interleave a little out of order.
    case raft([RaftEvent])
    /// State of nodes' consensus: when it changed and at least once a second; the newest of a node replaces the one before.
    case samples([NodeSample])
    /// Figures of nodes that do not push, one a scrape.
    case metrics([MetricsSample])
    /// In order of being due.
    case canary([CanaryWrite])
    case isCanaryOn(Bool)
    /// Of the writes since the canary started; the newest replaces the one before.
    case canaryCheck(CanaryCheck)
    /// All that are on, oldest first.
    case faults([ActiveFault])
    case faultSupport(FaultSupport)
    case logs([LogLine])
    case scenarios([ScenarioSummary])
    case scenario(ScenarioProgress)
    /// nil: no recording runs.
    case recording(path: String?)
    case replay(ReplayState)
    /// Of a recording: applied at the recorded times.
    case playback(Playback)
    case directory(DirectoryPage)
    /// `value` nil and no failure: the key does not exist (at that revision).
    case value(RequestID, key: KeyBytes, value: KeyValue?, failure: String?)
    /// Newest first. `compactRevision`: older versions may have existed but are compacted away.
    case history(RequestID, key: KeyBytes, versions: [KeyVersion], isComplete: Bool, compactRevision: Int64?, failure: String?)
    case lease(LeaseState)
    case count(RequestID, prefix: KeyBytes, count: Int64, samples: [KeyBytes], leased: Int?, failure: String?)
    case searchResults(RequestID, keys: [KeySummary], scanned: Int64, isFinished: Bool, failure: String?)
    /// In revision order; put `revision` of the newest.
    case changes([KeyChange], revision: Int64)
    /// The stream of changes missed some (it started late, or its revision was compacted): what is listed is read again.
    case keysStale
    case watch(WatchID, WatchUpdate)
    case finished(CommandResult)
    /// `content` nil: the editor failed or was left without saving; `message` says what happened then.
    case editorClosed(RequestID, content: [UInt8]?, message: String?)
    case theme(Theme)
    /// One short line for the person ("clipboard: over 74 KB, not copied").
    case notice(String, isBad: Bool)
}

/// Everything that can happen to the UI.
public enum Action: Sendable {
    case key(KeyPress)
    case mouse(MouseEvent)
    /// Bracketed paste: inserted into the text field that has the focus, never run as keys.
    case paste(String)
    case resized(Size)
    /// The terminal window got or lost the focus.
    case focused(Bool)
    /// Time passed: at least once a second for the clock, and when `Model.nextDeadline` is due.
    case tick
    case data(DataEvent)
}
