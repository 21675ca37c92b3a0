extension Model {
    /// What the runtime tells.
    mutating func receive(_ event: DataEvent, _ commands: inout [Command]) {
        switch event {
        case .cluster(let state): receive(state)
        case .events(let fresh):
            receive(fresh)
            elections.heard(fresh, cluster: cluster)
        case .workload(let sample):
            workload.append(sample)
            workload.isOn = !sample.isFinal
            latency.heard(sample)
            elections.heard(sample)
        case .raft(let fresh): elections.heard(fresh, cluster: cluster)
        case .samples(let fresh):
            for sample in fresh { samples[sample.node] = sample }
            elections.heard(fresh)
            latency.heard(fresh, cluster: cluster)
        case .metrics(let fresh): latency.heard(fresh)
        case .canary(let writes): elections.heard(writes)
        case .isCanaryOn(let isOn): isCanaryOn = isOn
        case .canaryCheck(let check):
            canaryCheck = check
            elections.heard(check, at: now)
        case .faults(let active):
            elections.heard(active, before: faults, at: now)
            latency.heard(active, at: now)
            let selected = selectedFault?.id
            faults = active
            if let selected, let index = faults.firstIndex(where: { $0.id == selected }) { chaos.active = index }
        case .faultSupport(let support): faultSupport = support
        case .logs(let lines): log.heard(lines)
        case .scenarios(let list): scenarios = list
        case .scenario(let progress):
            scenario = progress
            scenarioHeardAt = now
        case .recording(let path): recordingPath = path
        case .replay(let state): replay = state
        case .playback(let playback): receive(playback, &commands)
        case .directory(let page): receive(page)
        case .value(let request, let key, let value, let failure): receiveValue(request, key, value, failure, &commands)
        case .history(let request, let key, let versions, let isComplete, let compactRevision, let failure):
            guard keys.history.request == request else { return }
            keys.history.request = nil
            keys.history.key = key
            keys.history.versions = versions
            keys.history.isComplete = isComplete
            keys.history.compactRevision = compactRevision
            keys.history.failure = failure
            keys.history.selection = min(keys.history.selection, max(0, versions.count - 1))
        case .lease(let lease):
            if let index = leases.firstIndex(where: { $0.id == lease.id }) { leases[index] = lease } else { leases.append(lease) }
            if leases.count > 64 { leases.removeFirst() }
        case .count(let request, _, let count, let samples, let leased, let failure):
            guard case .confirm(var confirmation)? = overlay, case .deletePrefix(let prefix, request, _, _, _, _) = confirmation.question else { return }
            confirmation.question = .deletePrefix(prefix, request: request, count: failure == nil ? count : nil, leased: leased, samples: samples, failure: failure)
            overlay = .confirm(confirmation)
        case .searchResults(let request, let found, let scanned, let isFinished, let failure):
            guard keys.search?.request == request else { return }
            let room = KeySearch.limit - (keys.search?.results.count ?? 0)
            keys.search?.results.append(contentsOf: found.prefix(max(0, room)))
            keys.search?.scanned = scanned
            keys.search?.isFinished = isFinished
            keys.search?.failure = failure
            schedulePreview()
        case .changes(let changes, let revision):
            cluster.revision = max(cluster.revision ?? revision, revision)
            rates.observe(revision: cluster.revision)
            receive(changes)
        case .keysStale: if screen == .keys || keys.isFollowing { reloadKeys() }
        case .watch(let id, let update): receive(id, update)
        case .finished(let result): receive(result, &commands)
        case .editorClosed(let request, let content, let message): receiveEditor(request, content, message, &commands)
        case .theme(let theme):
            self.theme = theme
            say("theme \(theme.name)", .dim)
        case .notice(let text, let isBad): say(text, isBad ? .bad : .dim)
        }
    }

    private mutating func receive(_ state: ClusterState) {
        let selected = cluster.members.indices.contains(overview.selection) ? cluster.members[overview.selection].id : nil
        let revision = max(cluster.revision ?? 0, state.revision ?? 0)
        cluster = state
        if isReadOnly { cluster.mode = .readOnly }
        // The stream of changes may be ahead of the status that is polled.
        if revision > 0 { cluster.revision = revision }
        if let selected, let index = cluster.members.firstIndex(where: { $0.id == selected }) { overview.selection = index }
        if state.connection == .connected { clusterHeardAt = now }
        hasClusterData = hasClusterData || !state.members.isEmpty
        elections.observe(cluster, at: now)
        rates.observe(revision: cluster.revision)
    }

    private mutating func receive(_ fresh: [ClusterEvent]) {
        for event in fresh {
            if let index = events.lastIndex(where: { $0.id == event.id }) {
                events[index] = event
                continue
            }
            // Almost always the newest; events from several nodes may arrive a little out of order.
            var index = events.count
            while index > 0, event.at < events[index - 1].at { index -= 1 }
            events.insert(event, at: index)
            if overview.eventScroll > 0 { overview.eventScroll += 1 }
            if case .workload(let isOn) = event.kind { workload.isOn = isOn }
        }
        if events.count > Model.eventLimit { events.removeFirst(events.count - Model.eventLimit) }
    }

    // MARK: Answers to writes

    private mutating func receive(_ result: CommandResult, _ commands: inout [Command]) {
        guard let index = pendingWrites.firstIndex(where: { $0.request == result.request }) else { return }
        let pending = pendingWrites.remove(at: index)
        let took = Format.milliseconds(result.durationMicroseconds) + "ms"
        switch result.outcome {
        case .done(let revision, let detail): finish(pending, result, revision, detail, took, &commands)
        case .conflict(let current): conflict(pending, current, &commands)
        case .failed(let message):
            say("\(pending.verb) failed: \(message)", .bad)
            switch pending.kind {
            case .put(_, _, fromEditor: true): keys.editor?.savingRequest = nil
            case .undo(let step): undoStack.append(step)
            case .workload: workload.isSwitching = false
            default: break
            }
        }
    }

    private mutating func finish(_ pending: PendingWrite, _ result: CommandResult, _ revision: Int64?, _ detail: String?, _ took: String, _ commands: inout [Command]) {
        let at = revision.map { " rev \(Format.count($0))" } ?? ""
        switch pending.kind {
        case .put(let key, _, let fromEditor):
            say("put ok \(took)\(at)")
            if let revision { remember("put \(Format.text(key))", .put(key: key, modRevision: revision, previous: result.removed.first)) }
            if fromEditor { keys.editor = nil }
            afterWrite(of: key)
        case .delete(let key):
            say(result.removedCount == 0 ? "nothing to delete: \(Format.text(key)) was gone" : "delete ok \(took)\(at)", result.removedCount == 0 ? .warn : .ok)
            if !result.removed.isEmpty { remember("delete \(Format.text(key))", .removed(result.removed)) }
            afterWrite(of: nil)
        case .rename(let from, let to):
            say("rename ok \(took)\(at)")
            if let revision, let old = result.removed.first {
                remember("rename \(Format.text(from))", .renamed(from: from, to: to, value: old.value, lease: old.summary.lease, modRevision: revision))
            }
            afterWrite(of: to)
        case .deleteKeys(let count):
            say("deleted \(Format.count(result.removedCount)) of \(Format.plural(Int64(count), "key")) \(took)\(at)")
            keys.marks = []
            if !result.removed.isEmpty { remember("delete \(Format.plural(Int64(result.removed.count), "key"))", .removed(result.removed)) }
            afterWrite(of: nil)
        case .deletePrefix(let prefix):
            let canUndo = Int64(result.removed.count) == result.removedCount
            say("deleted \(Format.plural(result.removedCount, "key")) \(took)\(at)" + (canUndo ? " · U undoes" : " · too many to undo"))
            if canUndo, !result.removed.isEmpty { remember("delete \(Format.text(prefix))", .removed(result.removed)) }
            afterWrite(of: nil)
        case .undo(let step):
            say("undone: \(step.title) \(took)\(at)" + (detail.map { " · \($0)" } ?? ""))
            if case .put(let key, _, _) = step.change { afterWrite(of: key) } else { afterWrite(of: nil) }
        case .node(let what): say(["\(what): \(detail ?? "ok") \(took)", pending.remark].compactMap { $0 }.joined(separator: " · "), pending.remark == nil ? .ok : .warn)
        case .workload(let isOn):
            workload.isSwitching = false
            workload.isOn = isOn
            say(isOn ? "workload runs" : "workload stopped")
        case .canary(let isOn): say(isOn ? "canary writes" : "canary stopped")
        case .fault(let what): say([detail ?? what, took, pending.remark].compactMap { $0 }.joined(separator: " · "), pending.remark == nil ? .ok : .warn)
        case .scenario(let name): say("scenario \(name): \(detail ?? "started")")
        case .export(let what): say(detail ?? "exported \(what)", .ok)
        case .record(let isOn): say(detail ?? (isOn ? "recording" : "recording ended"), .ok)
        case .copy(let text): say(detail ?? "copied \(text)", .dim)
        case .save: say(detail ?? "saved", .ok)
        case .screen: say(detail ?? "screen saved", .ok)
        }
    }

    private mutating func remember(_ title: String, _ change: UndoStep.Change) {
        undoStack.append(UndoStep(title: title, change: change))
        if undoStack.count > Model.undoLimit { undoStack.removeFirst() }
    }

    /// The value on the screen is read again after our own write, also where no watch is following.
    private mutating func afterWrite(of key: KeyBytes?) {
        if let key, keys.selectedKey != key, screen == .keys, keys.search == nil { keys.reveal = key }
        keys.history.key = nil
        keys.value.version = nil
        schedulePreview()
    }

    private mutating func conflict(_ pending: PendingWrite, _ current: KeyValue?, _ commands: inout [Command]) {
        switch pending.kind {
        case .put(let key, let value, fromEditor: true):
            keys.editor?.savingRequest = nil
            guard let base = keys.editor?.base else {
                // A new key that exists by now: there is no base; compare with what is there.
                overlay = .conflict(Conflict(theirs: current, merge: Model.merge(base: [], mine: value, theirs: current?.value ?? [])))
                say("\(Format.text(key)) exists by now: nothing was written", .warn)
                return
            }
            overlay = .conflict(Conflict(theirs: current, merge: Model.merge(base: base.value, mine: value, theirs: current?.value ?? [])))
        case .put(let key, _, _): say("\(Format.text(key)) changed meanwhile: nothing was written", .warn)
        case .delete(let key): say("\(Format.text(key)) changed meanwhile: not deleted", .warn)
        case .rename(_, let to): say("not renamed: the key changed, or \(Format.text(to)) exists", .warn)
        case .undo(let step): say("cannot undo \(step.title): it was changed since by someone", .warn)
        default: say("\(pending.verb): refused, the keys changed meanwhile", .warn)
        }
        schedulePreview()
    }

    /// JSON is merged as it is laid out, so that a one-line value merges by its members.
    static func merge(base: [UInt8], mine: [UInt8], theirs: [UInt8]) -> ThreeWayMerge {
        func lines(_ bytes: [UInt8], _ asJSON: Bool) -> [String] {
            let text = asJSON ? (try? JSON.formatted(bytes)) ?? "" : String(decoding: bytes, as: UTF8.self)
            return text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).map { String($0) }
        }
        let asJSON = ValueDocument.isJSON(mine) && ValueDocument.isJSON(theirs) && (base.isEmpty || ValueDocument.isJSON(base))
        return ThreeWayMerge(base: base.isEmpty ? [] : lines(base, asJSON), mine: lines(mine, asJSON), theirs: lines(theirs, asJSON))
    }

    // MARK: Watches

    private mutating func receive(_ id: WatchID, _ update: WatchUpdate) {
        guard let index = watch.sessions.firstIndex(where: { $0.id == id }) else { return }
        switch update {
        case .events(let events): watch.sessions[index].append(events)
        case .live(let revision):
            watch.sessions[index].state = .live
            watch.sessions[index].revision = max(revision, watch.sessions[index].revision ?? revision)
        case .resuming(let revision, let reason):
            watch.sessions[index].state = .resuming(since: now)
            watch.sessions[index].note("\(reason), resuming after rev \(Format.count(revision))", at: now, isBad: true)
        case .resumed(let revision, let endpoint, let milliseconds):
            watch.sessions[index].state = .live
            watch.sessions[index].note("resumed on \(endpoint) after rev \(Format.count(revision)) in \(Format.span(milliseconds: milliseconds)), no event missed", at: now)
        case .compacted(let revision):
            watch.sessions[index].state = .live
            watch.sessions[index].note("compacted: events before rev \(Format.count(revision)) are lost; goes on from there", at: now, isBad: true)
        case .progress(let revision): watch.sessions[index].revision = max(revision, watch.sessions[index].revision ?? revision)
        case .failed(let message):
            watch.sessions[index].state = .failed(message)
            watch.sessions[index].note(message, at: now, isBad: true)
        }
    }
}
