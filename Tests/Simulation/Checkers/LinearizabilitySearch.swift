import Base

/// Linearizability by search (Wing & Gong, with Lowe's memoisation), without the truth and without trusting the order of revisions: for
/// samples of a simulation and for histories of real processes.
///
/// Promise: there is an order of the calls, each at some moment between its start and its end (one of unknown outcome at some moment behind
/// its start, or never), in which every acknowledged answer is what a plain map would have answered. A mod revision counts only as a name:
/// a comparison holds if the key's value is the one that was seen with that mod revision.
///
/// Keys that no call joins are searched apart. Not looked at: serializable reads, reads at an explicit revision, and what leases do
/// beyond that a leased key may vanish at any moment.
public struct LinearizabilitySearch: Sendable {
    public enum Verdict: Hashable, Sendable {
        case linearizable
        /// The calls of which no order is right, those on the joined keys only.
        case violated([Violation])
        /// The budget was used up; `keys` tells where.
        case undecided(keys: [[UInt8]])
    }

    /// Steps that all searches together may take, those of looking for what fits included: a bound of time and memory.
    public var budget: Int
    /// Steps taken by the last `check`.
    public private(set) var steps = 0

    public init(budget: Int = 1_000_000) { self.budget = budget }

    /// - Parameter initial: what the keys held before the first call.
    public mutating func check(_ operations: [Operation], initial: [SeenKeyValue] = []) -> Verdict {
        steps = 0
        var names = Names()
        var violations: [Violation] = []
        for kv in initial { names.learn(kv, into: &violations) }
        for operation in operations { names.learn(operation, into: &violations) }
        if !violations.isEmpty { return .violated(violations) }

        var undecided: [[UInt8]] = []
        for component in names.components(operations) {
            var search = Component(component, operations, names, initial)
            switch search.run(budget: budget - steps) {
            case .found: break
            case .impossible:
                let last = search.deepest.map { describe(operations[$0]) } ?? "the first call"
                let keys = component.keys.prefix(4).map { show(names.keys[$0]) }.joined(separator: ", ")
                violations.append(Violation("linearizability", "no order of the \(component.operations.count) calls on \(keys) explains them; none gets past \(last)"))
            case .outOfBudget: undecided.append(contentsOf: component.keys.map { names.keys[$0] })
            }
            steps += search.steps
        }
        if !violations.isEmpty { return .violated(violations) }
        return undecided.isEmpty ? .linearizable : .undecided(keys: undecided)
    }
}

/// Keys and values as small numbers; value 0 is "absent".
private struct Names {
    private(set) var keys: [[UInt8]] = []
    private var numberOfKey: [Key: Int] = [:]
    private var numberOfValue: [Key: Int32] = [:]
    /// The mod revision with which a value of a key was seen; 0: not known. One value stands under one key.
    private var modRevisions: [Int64] = [0]
    /// The mod revisions that belong to a known value of a key.
    private var known: Set<Named> = []
    private struct Named: Hashable {
        var key: Int
        var modRevision: Int64
    }
    func isKnown(_ modRevision: Int64, ofKey key: Int) -> Bool { known.contains(Named(key: key, modRevision: modRevision)) }
    /// A value put under several keys or twice has no one name.
    private var isAmbiguous: [Bool] = [false]
    /// Keys in order, for ranges.
    private var sorted: [Int] = []

    func number(ofKey key: [UInt8]) -> Int { numberOfKey[Key(key)]! }
    func number(ofValue value: [UInt8]) -> Int32 { numberOfValue[Key(value)] ?? -1 }
    func modRevision(_ value: Int32) -> Int64 { isAmbiguous[Int(value)] ? 0 : modRevisions[Int(value)] }

    private mutating func addKey(_ key: [UInt8]) {
        let name = Key(key)
        if numberOfKey[name] == nil {
            numberOfKey[name] = keys.count
            keys.append(key)
        }
    }
    private mutating func addValue(_ value: [UInt8]) -> Int32 {
        let name = Key(value)
        if let number = numberOfValue[name] { return number }
        let number = Int32(modRevisions.count)
        numberOfValue[name] = number
        modRevisions.append(0)
        isAmbiguous.append(false)
        return number
    }
    private var writtenValues: Set<Int32> = []

    private mutating func named(_ value: Int32, _ key: [UInt8], _ modRevision: Int64, into violations: inout [Violation]) {
        let at = Int(value)
        if modRevisions[at] == 0 { modRevisions[at] = modRevision }
        known.insert(Named(key: numberOfKey[Key(key)]!, modRevision: modRevision))
        if modRevisions[at] != modRevision, !isAmbiguous[at] {
            violations.append(Violation("linearizability", "one value of \(show(key)) was seen with mod revisions \(modRevisions[at]) and \(modRevision)"))
        }
    }

    private mutating func written(_ key: [UInt8], _ value: [UInt8], modRevision: Int64?, into violations: inout [Violation]) {
        addKey(key)
        let number = addValue(value)
        if !writtenValues.insert(number).inserted { isAmbiguous[Int(number)] = true }
        if let modRevision { named(number, key, modRevision, into: &violations) }
    }

    mutating func learn(_ kv: SeenKeyValue, into violations: inout [Violation]) {
        addKey(kv.key)
        named(addValue(kv.value), kv.key, kv.modRevision, into: &violations)
    }

    mutating func learn(_ operation: Operation, into violations: inout [Violation]) {
        var revision: Int64?
        if case .refused = operation.outcome { return }
        if case .done(let header, let found, _, let succeeded) = operation.outcome {
            revision = header
            if case .compareAndSwap(let key, _, let value) = operation.call {
                if succeeded { written(key, value, modRevision: header, into: &violations) } else { addKey(key) }
                for kv in found where !succeeded { learn(kv, into: &violations) }
                return
            }
            if case .range = operation.call { for kv in found { learn(kv, into: &violations) } }
        }
        switch operation.call {
        case .put(let key, let value, _), .compareAndSwap(let key, _, let value): written(key, value, modRevision: revision, into: &violations)
        case .putAll(let pairs): for pair in pairs { written(pair.key, pair.value, modRevision: revision, into: &violations) }
        case .delete(let key, let end), .range(let key, let end, _, _): if end.isEmpty { addKey(key) }
        case .compact, .leaseGrant, .leaseRevoke, .leaseKeepAlive: break
        }
    }

    mutating func sortKeys() { sorted = keys.indices.sorted { compareBytes(keys[$0], keys[$1]) < 0 } }

    /// The numbers of the known keys in a range.
    func keysIn(_ key: [UInt8], _ end: [UInt8]) -> [Int] {
        if end.isEmpty { return numberOfKey[Key(key)].map { [$0] } ?? [] }
        return sorted.filter { rangeContains(key, end, keys[$0]) }
    }

    struct Part {
        var keys: [Int]
        /// Positions in the history.
        var operations: [Int]
    }

    /// The keys an operation touches; empty: it does not count.
    func keys(of operation: Operation) -> [Int] {
        if case .refused = operation.outcome { return [] }
        if case .lease = operation.outcome { return [] }
        switch operation.call {
        case .put(let key, _, _), .compareAndSwap(let key, _, _): return [number(ofKey: key)]
        case .putAll(let pairs): return pairs.map { number(ofKey: $0.key) }
        case .delete(let key, let end): return keysIn(key, end)
        case .range(let key, let end, let revision, let isSerializable):
            if revision != 0 || isSerializable { return [] }
            if case .unknown = operation.outcome { return [] }
            return keysIn(key, end)
        case .compact, .leaseGrant, .leaseRevoke, .leaseKeepAlive: return []
        }
    }

    /// Keys that some operation joins, with the operations on them. Order: of the first key's first appearance.
    mutating func components(_ operations: [Operation]) -> [Part] {
        sortKeys()
        var parent = Array(keys.indices)
        func root(_ key: Int) -> Int {
            var key = key
            while parent[key] != key {
                parent[key] = parent[parent[key]]
                key = parent[key]
            }
            return key
        }
        let touched = operations.map { keys(of: $0) }
        for keys in touched {
            guard let first = keys.first else { continue }
            for key in keys.dropFirst() { parent[root(key)] = root(first) }
        }
        var parts: [Part] = []
        var partOfRoot = Array(repeating: -1, count: keys.count)
        for key in keys.indices {
            let top = root(key)
            if partOfRoot[top] < 0 {
                partOfRoot[top] = parts.count
                parts.append(Part(keys: [], operations: []))
            }
            parts[partOfRoot[top]].keys.append(key)
        }
        for (at, keys) in touched.enumerated() {
            guard let first = keys.first else { continue }
            parts[partOfRoot[root(first)]].operations.append(at)
        }
        return parts
    }
}

/// The search over one set of joined keys.
private struct Component {
    /// What a call does to the keys, which are numbered from 0 here.
    private enum Effect {
        case put([(key: Int, value: Int32)])
        /// `count` nil: not known.
        case delete([Int], count: Int?)
        case read([(key: Int, value: Int32)])
        case swap(key: Int, expected: Int64, value: Int32, Swap)
        /// A leased value vanishes.
        case vanish(key: Int, value: Int32)
        /// No state fits: a read of something that was never written.
        case impossible
    }
    private enum Swap {
        case succeeded
        case failed(found: Int32)
        case unknown
    }
    private struct Call {
        var effect: Effect
        var start: Moment
        /// `.max`: not known whether and when.
        var end: Moment
        /// Position in the history; -1 for a vanishing.
        var operation: Int
        /// The call that must come before: the same client's acknowledged one. -1: none.
        var before = -1
    }

    /// Acknowledged calls by start, then the unknown ones by start.
    private var calls: [Call] = []
    private var acknowledged = 0
    /// The unknown ones that touch a key, and those that touch several.
    private var unknownOfKey: [[Int]] = []
    private var wide: [Int] = []
    private let initial: [Int32]
    /// The keys' numbers in the whole history.
    private let keys: [Int]
    private let names: Names
    private(set) var steps = 0
    private var budget = 0
    /// The history's position of the call that the farthest attempt could not get past.
    private(set) var deepest: Int?

    init(_ part: Names.Part, _ operations: [Operation], _ names: Names, _ initial: [SeenKeyValue]) {
        self.names = names
        keys = part.keys
        var local: [Int: Int] = [:]
        for (at, key) in part.keys.enumerated() { local[key] = at }
        var state = Array(repeating: Int32(0), count: part.keys.count)
        for kv in initial { if let key = local[names.number(ofKey: kv.key)] { state[key] = names.number(ofValue: kv.value) } }
        self.initial = state

        func key(_ bytes: [UInt8]) -> Int { local[names.number(ofKey: bytes)]! }
        var unknown: [Call] = []
        for at in part.operations {
            let operation = operations[at]
            var call = Call(effect: .impossible, start: operation.start, end: operation.end, operation: at)
            var isUnknown = false
            var answer: (found: [SeenKeyValue], count: Int64, succeeded: Bool)?
            if case .done(_, let found, let count, let succeeded) = operation.outcome { answer = (found, count, succeeded) } else { isUnknown = true }
            switch operation.call {
            case .put(let bytes, let value, let lease):
                let number = names.number(ofValue: value)
                call.effect = .put([(key(bytes), number)])
                if lease != 0 {
                    unknown.append(Call(effect: .vanish(key: key(bytes), value: number), start: operation.start, end: .max, operation: -1))
                }
            case .putAll(let pairs):
                call.effect = .put(pairs.map { (key($0.key), names.number(ofValue: $0.value)) })
            case .delete(let bytes, let end):
                call.effect = .delete(names.keysIn(bytes, end).map { local[$0]! }, count: answer.map { Int($0.count) })
            case .range(let bytes, let end, _, _):
                var expected = names.keysIn(bytes, end).map { (key: local[$0]!, value: Int32(0)) }
                var isPossible = true
                for kv in answer?.found ?? [] {
                    if let position = expected.firstIndex(where: { $0.key == local[names.number(ofKey: kv.key)] }) {
                        expected[position].value = names.number(ofValue: kv.value)
                    } else {
                        isPossible = false // Outside of what was asked.
                    }
                }
                call.effect = isPossible ? .read(expected) : .impossible
            case .compareAndSwap(let bytes, let expected, let value):
                let outcome: Swap = answer.map { $0.succeeded ? .succeeded : .failed(found: $0.found.first.map { names.number(ofValue: $0.value) } ?? 0) } ?? .unknown
                call.effect = .swap(key: key(bytes), expected: expected, value: names.number(ofValue: value), outcome)
            case .compact, .leaseGrant, .leaseRevoke, .leaseKeepAlive: continue
            }
            if isUnknown {
                call.end = .max
                unknown.append(call)
            } else {
                calls.append(call)
            }
        }
        // Stable sorts, so that equal starts keep the order of the history.
        calls.sort { $0.start < $1.start }
        unknown.sort { $0.start < $1.start }
        acknowledged = calls.count
        var lastOfClient: [Int: Int] = [:]
        for at in calls.indices {
            let client = operations[calls[at].operation].client
            calls[at].before = lastOfClient[client] ?? -1
            lastOfClient[client] = at
        }
        // Unknown deletes of the same keys are alike but for their starts: the earlier one comes first.
        var lastDelete: [[Int]: Int] = [:]
        for at in unknown.indices {
            guard case .delete(let keys, _) = unknown[at].effect else { continue }
            unknown[at].before = lastDelete[keys] ?? -1
            lastDelete[keys] = acknowledged + at
        }
        calls += unknown
        unknownOfKey = Array(repeating: [], count: part.keys.count)
        for at in acknowledged..<calls.count {
            let keys = touched(calls[at].effect)
            for key in keys { unknownOfKey[key].append(at) }
            if keys.count > 1 { wide.append(at) }
        }
    }

    private func touched(_ effect: Effect) -> [Int] {
        switch effect {
        case .put(let pairs): pairs.map(\.key)
        case .delete(let keys, _): keys
        case .read(let expected): expected.map(\.key)
        case .swap(let key, _, _, _), .vanish(let key, _): [key]
        case .impossible: []
        }
    }

    enum End {
        case found
        case impossible
        case outOfBudget
    }

    /// What was reached: which calls are done, and the state. The done acknowledged calls are all below `first` and those of `window`.
    private struct Reached: Hashable {
        var first: Int
        var window: [UInt64]
        var unknown: [UInt64]
        var state: [Int32]
    }

    /// An acknowledged call with the unknown ones placed right before it.
    private struct Step {
        var call: Int
        var option: Int
        var unknown: [Int]
        /// Before the step.
        var state: [Int32]
        var first: Int
    }

    private struct Option {
        var unknown: [Int]
        var state: [Int32]
    }

    /// Depth first over the acknowledged calls: at each point, every one that nothing undone precedes may come next. States reached
    /// before are not tried again.
    ///
    /// Unknown calls are placed only where they help: an unknown write of one key may be moved later until right before the call that
    /// sees it, and left out if none does. So it is looked for only when an acknowledged call does not fit the state. One of several
    /// keys may have to come before a call that overwrites a part of it, so it is also tried before every call that touches its keys.
    mutating func run(budget: Int) -> End {
        self.budget = budget
        var isDone = Array(repeating: false, count: calls.count)
        var state = initial
        var first = 0
        var left = acknowledged
        var trail: [Step] = []
        var visited: Set<Reached> = []
        var candidate = 0
        var option = 0
        // The first end among undone acknowledged calls: nothing that starts behind it may come before it.
        func horizon() -> Moment {
            var least = Moment.max
            var at = first
            while at < acknowledged, calls[at].start <= least {
                if !isDone[at] { least = min(least, calls[at].end) }
                at += 1
            }
            return least
        }
        var limit = horizon()
        var farthest = -1
        while left > 0 {
            var next: Option?
            while next == nil, candidate < acknowledged, calls[candidate].start <= limit {
                if steps > budget { return .outOfBudget }
                if !isDone[candidate], calls[candidate].before < 0 || isDone[calls[candidate].before] {
                    let options = self.options(for: candidate, state, isDone, limit)
                    while option < options.count {
                        steps += 1
                        if steps > budget { return .outOfBudget }
                        isDone[candidate] = true
                        for at in options[option].unknown { isDone[at] = true }
                        let isNew = visited.insert(reached(isDone, first, options[option].state)).inserted
                        isDone[candidate] = false
                        for at in options[option].unknown { isDone[at] = false }
                        if isNew {
                            next = options[option]
                            break
                        }
                        option += 1
                    }
                }
                if next == nil {
                    candidate += 1
                    option = 0
                }
            }
            if let next {
                trail.append(Step(call: candidate, option: option, unknown: next.unknown, state: state, first: first))
                isDone[candidate] = true
                for at in next.unknown { isDone[at] = true }
                left -= 1
                state = next.state
                while first < acknowledged, isDone[first] { first += 1 }
                limit = horizon()
                candidate = first
                option = 0
                continue
            }
            if first > farthest {
                farthest = first
                deepest = first < acknowledged ? calls[first].operation : nil
            }
            guard let step = trail.popLast() else { return isCut ? .outOfBudget : .impossible }
            isDone[step.call] = false
            for at in step.unknown { isDone[at] = false }
            left += 1
            state = step.state
            first = step.first
            limit = horizon()
            candidate = step.call
            option = step.option + 1
        }
        return .found
    }

    // MARK: Unknown calls

    /// Ways to make one call fit, at most; and unknown calls before one call. Beyond, the answer is "undecided" instead of "violated".
    private static let maxOptions = 64
    private static let maxPlaced = 6
    /// Unknown calls that only serve each other.
    private static let maxChain = 3
    private var isCut = false

    /// What a call needs of one key.
    private enum Need {
        case value(Int32)
        case present
        /// The value with this mod revision, or one whose mod revision nobody was told.
        case modRevision(Int64)
    }

    private func meets(_ need: Need, _ key: Int, _ value: Int32) -> Bool {
        switch need {
        case .value(let wanted): value == wanted
        case .present: value != 0
        case .modRevision(let wanted): mayHold(key, value, wanted)
        }
    }

    /// Every way in which the acknowledged call may come next, with as few unknown calls before it as will do.
    private mutating func options(for call: Int, _ state: [Int32], _ isDone: [Bool], _ limit: Moment) -> [Option] {
        let effect = calls[call].effect
        if case .impossible = effect { return [] }
        var options: [Option] = []
        var placed: [Int] = []
        fit(effect, state, isDone, limit, &placed, &options)
        if !wide.isEmpty {
            let keys = touched(effect)
            placeWide(0, effect, keys, state, isDone, limit, &placed, &options)
        }
        return options
    }

    /// Before `effect`, unknown calls of several keys that touch its keys: one or two of them, in any order.
    private mutating func placeWide(
        _ count: Int, _ effect: Effect, _ keys: [Int], _ state: [Int32], _ isDone: [Bool], _ limit: Moment, _ placed: inout [Int], _ options: inout [Option], depth: Int = 0
    ) {
        for at in wide where isOpen(at, isDone, limit, placed) && touched(calls[at].effect).contains(where: keys.contains) {
            steps += 1
            guard let after = apply(calls[at].effect, to: state), after != state else { continue }
            guard count < 2 else {
                isCut = true
                return
            }
            placed.append(at)
            fit(effect, after, isDone, limit, &placed, &options)
            placeWide(count + 1, effect, keys, after, isDone, limit, &placed, &options)
            placed.removeLast()
        }
    }

    private func isOpen(_ at: Int, _ isDone: [Bool], _ limit: Moment, _ placed: [Int]) -> Bool {
        !isDone[at] && calls[at].start <= limit && !placed.contains(at)
            && (calls[at].before < 0 || isDone[calls[at].before] || placed.contains(calls[at].before))
    }

    /// Adds the ways in which `effect` fits the state: at once, or behind unknown calls that bring its keys to what it needs.
    private mutating func fit(
        _ effect: Effect, _ state: [Int32], _ isDone: [Bool], _ limit: Moment, _ placed: inout [Int], _ options: inout [Option], depth: Int = 0
    ) {
        steps += 1
        guard options.count < Component.maxOptions, placed.count <= Component.maxPlaced, steps <= budget else {
            isCut = true
            return
        }
        if let after = apply(effect, to: state) {
            options.append(Option(unknown: placed, state: after))
            return
        }
        switch effect {
        case .read(let expected):
            // One key after the other.
            guard let wrong = expected.first(where: { state[$0.key] != $0.value }) else { return }
            bring(wrong.key, to: .value(wrong.value), then: effect, state, isDone, limit, &placed, &options, depth: depth)
        case .swap(let key, _, _, .failed(let found)): bring(key, to: .value(found), then: effect, state, isDone, limit, &placed, &options, depth: depth)
        case .swap(let key, let expected, _, .succeeded): bring(key, to: .modRevision(expected), then: effect, state, isDone, limit, &placed, &options, depth: depth)
        case .delete(let keys, let count):
            let present = keys.filter { state[$0] != 0 }.count
            guard let count, count != present else { return }
            for key in keys where (state[key] != 0) == (present > count) {
                bring(key, to: present > count ? .value(0) : .present, then: effect, state, isDone, limit, &placed, &options, depth: depth)
            }
        // An unknown swap or vanishing stands here as the next of a chain.
        case .swap(let key, let expected, _, .unknown): bring(key, to: .modRevision(expected), then: effect, state, isDone, limit, &placed, &options, depth: depth)
        case .vanish(let key, let value): bring(key, to: .value(value), then: effect, state, isDone, limit, &placed, &options, depth: depth)
        case .put, .impossible: return
        }
    }

    /// Places an unknown call, with what it needs itself, that brings `key` to `need`; then goes on fitting `effect`.
    private mutating func bring(
        _ key: Int, to need: Need, then effect: Effect, _ state: [Int32], _ isDone: [Bool], _ limit: Moment, _ placed: inout [Int], _ options: inout [Option], depth: Int = 0
    ) {
        for at in unknownOfKey[key] where isOpen(at, isDone, limit, placed) {
            let result: Int32 = switch calls[at].effect {
            case .put(let pairs): pairs.last { $0.key == key }!.value
            case .swap(_, _, let value, _): value
            case .delete, .vanish, .read, .impossible: 0
            }
            guard meets(need, key, result) else { continue }
            // The ways in which this unknown call itself comes about.
            var ways: [Option] = []
            if let after = apply(calls[at].effect, to: state) {
                ways.append(Option(unknown: placed + [at], state: after))
            } else if depth < Component.maxChain {
                var isReserved = isDone
                isReserved[at] = true
                fit(calls[at].effect, state, isReserved, limit, &placed, &ways, depth: depth + 1)
                for way in ways.indices { ways[way].unknown.append(at) }
            } else {
                isCut = true
            }
            for way in ways {
                var deeper = way.unknown
                fit(effect, way.state, isDone, limit, &deeper, &options, depth: depth)
            }
        }
    }

    private func reached(_ isDone: [Bool], _ first: Int, _ state: [Int32]) -> Reached {
        var first = first
        while first < acknowledged, isDone[first] { first += 1 }
        func bits(_ range: Range<Int>) -> [UInt64] {
            var words: [UInt64] = []
            for at in range where isDone[at] {
                let word = (at - range.lowerBound) / 64
                while words.count <= word { words.append(0) }
                words[word] |= 1 << UInt64((at - range.lowerBound) % 64)
            }
            return words
        }
        // Nothing far behind `first` can be done: whatever starts after its end waits for it.
        var end = first
        while end < acknowledged, calls[end].start <= calls[first].end { end += 1 }
        return Reached(first: first, window: bits(first..<end), unknown: bits(acknowledged..<calls.count), state: state)
    }

    /// Whether the comparison with `expected` can hold for the key's value: one of unknown mod revision may have any that is not another's.
    private func mayHold(_ key: Int, _ value: Int32, _ expected: Int64) -> Bool {
        if value == 0 { return expected == 0 }
        let known = names.modRevision(value)
        return known == 0 ? expected != 0 && !names.isKnown(expected, ofKey: keys[key]) : known == expected
    }

    /// Nil: the call's answer is not what this state gives.
    private func apply(_ effect: Effect, to state: [Int32]) -> [Int32]? {
        switch effect {
        case .impossible: return nil
        case .put(let pairs):
            var after = state
            for pair in pairs { after[pair.key] = pair.value }
            return after
        case .delete(let keys, let count):
            var after = state
            var deleted = 0
            for key in keys where after[key] != 0 {
                after[key] = 0
                deleted += 1
            }
            return count == nil || count == deleted ? after : nil
        case .read(let expected):
            for one in expected where state[one.key] != one.value { return nil }
            return state
        case .vanish(let key, let value):
            guard state[key] == value else { return nil }
            var after = state
            after[key] = 0
            return after
        case .swap(let key, let expected, let value, let outcome):
            let current = state[key]
            let mayFail = current == 0 ? expected != 0 : names.modRevision(current) != expected || expected == 0
            var swapped = state
            swapped[key] = value
            switch outcome {
            case .succeeded: return mayHold(key, current, expected) ? swapped : nil
            case .failed(let found): return mayFail && found == current ? state : nil
            // One of unknown outcome that fails changes nothing: it need not be placed.
            case .unknown: return mayHold(key, current, expected) ? swapped : nil
            }
        }
    }
}
